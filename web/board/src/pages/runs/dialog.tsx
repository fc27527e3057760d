import { type ReactNode, useEffect, useId, useRef } from "react";

interface Props {
  title: string;
  /** After it is closed, by Escape too. */
  onClose: () => void;
  /** `close` gives the focus back to what had it before. */
  children: (close: () => void) => ReactNode;
}

export function Dialog({ title, onClose, children }: Props) {
  const id = useId();
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current!.showModal(), []);
  return (
    <dialog ref={dialog} aria-labelledby={id} onClose={onClose}>
      <h2 id={id}>{title}</h2>
      {children(() => dialog.current!.close())}
    </dialog>
  );
}
