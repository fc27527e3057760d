// The types of src/gql/, from the committed schema and the board's own operations, and the hashes that name these.
import { createHash } from "node:crypto";
import type { CodegenConfig } from "@graphql-codegen/cli";

export default {
  schema: process.env.SCHEMA ?? "../../schema/schema.graphql",
  documents: "../../queries/board/*.graphql",
  generates: {
    "src/gql/": {
      preset: "client",
      presetConfig: {
        fragmentMasking: false,
        persistedDocuments: { hashAlgorithm: (text: string) => createHash("sha256").update(text).digest("hex") },
      },
      config: { useTypeImports: true, enumsAsTypes: true, scalars: { DateTime: "string", JSON: "unknown" } },
    },
  },
} satisfies CodegenConfig;
