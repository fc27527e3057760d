// Long lines are wrapped: nobody has to scroll in two directions at once, least of all on a narrow screen.
import { useEditorContext } from "@graphiql/react";
import { useEffect } from "react";

export function WrapLines() {
  const { queryEditor, variableEditor, headerEditor, responseEditor } = useEditorContext({ nonNull: true });
  useEffect(() => {
    for (const editor of [queryEditor, variableEditor, headerEditor, responseEditor]) editor?.setOption("lineWrapping", true);
  }, [queryEditor, variableEditor, headerEditor, responseEditor]);
  return null;
}
