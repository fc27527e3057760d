import { type ReactNode, createContext, useContext, useEffect, useId, useRef } from "react";

const Notice = createContext<ReactNode>(null);

/** What is not up to date: a dialog that is open covers what the page says of it. */
export const DialogNotice = Notice.Provider;

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
  const notice = useContext(Notice);
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current!.showModal(), []);
  return (
    <dialog className={className} ref={dialog} aria-labelledby={id} onClose={onClose}>
      <h2 id={id}>{title}</h2>
      {children(() => dialog.current!.close())}
      <div role="status" className="at-foot">
        {notice}
      </div>
    </dialog>
  );
}
