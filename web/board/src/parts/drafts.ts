// What somebody is typing, until it is a filter.
import { useEffect, useRef, useState } from "react";

export interface Draft {
  text: string;
  type: (text: string) => void;
  /** Sends it at once. */
  send: () => void;
}

/** `value` is what is asked for now; what is typed is sent `after` milliseconds, or by `send` alone. */
export function useDraft(value: string, send: (text: string) => void, after?: number): Draft {
  const [text, setText] = useState(value);
  const sent = useRef(value);
  const sendNow = (wanted: string) => {
    if (wanted === sent.current) return;
    sent.current = wanted;
    send(wanted);
  };
  useEffect(() => {
    if (value === sent.current) return; // our own
    sent.current = value;
    setText(value);
  }, [value]);
  useEffect(() => {
    if (after === undefined) return;
    const timer = setTimeout(() => sendNow(text), after);
    return () => clearTimeout(timer);
  }, [text]);
  return { text, type: setText, send: () => sendNow(text) };
}
