import { type ReactNode, useEffect, useId, useRef } from "react";

interface Props {
  title: string;
  className?: string;
  /** After it is closed, by Escape too. */
  onClose: () => void;
  /** `close` gives the focus back to what had it before. */
  children: (close: () => void) => ReactNode;
}

/** It is open as long as it is shown; what is behind it can't be reached. */
export function Dialog({ title, className, onClose, children }: Props) {
  const id = useId();
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current!.showModal(), []);
  return (
    <dialog className={className} ref={dialog} aria-labelledby={id} onClose={onClose}>
      <h2 id={id}>{title}</h2>
      {children(() => dialog.current!.close())}
    </dialog>
  );
}
