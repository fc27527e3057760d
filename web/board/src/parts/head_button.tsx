import type { ReactNode } from "react";

import { focusHeading } from "../browser/focus.ts";

/** A button in the head of a section that goes when it is pressed: the keyboard goes on from the heading. */
export function HeadButton({ onPress, children }: { onPress: () => void; children: ReactNode }) {
  return (
    <button
      className="quiet"
      onClick={(event) => {
        focusHeading(event);
        onPress();
      }}
    >
      {children}
    </button>
  );
}
