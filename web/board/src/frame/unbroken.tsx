import { Component, type ReactNode } from "react";

/** A fault of a page leaves the frame around it, and says so. Give it a `key` of the page. */
export class Unbroken extends Component<{ children: ReactNode }, { fault: unknown }> {
  override state = { fault: undefined };

  static getDerivedStateFromError(fault: unknown): { fault: unknown } {
    return { fault };
  }

  override render(): ReactNode {
    const { fault } = this.state;
    if (fault === undefined) return this.props.children;
    return (
      <>
        <h1 tabIndex={-1}>This page can't be shown</h1>
        <div className="failure" role="alert">
          <p>
            It has a fault, which is not yours. The other pages work. Please report it: <code>{String(fault)}</code>
          </p>
          <button onClick={() => location.reload()}>Load the page anew</button>
        </div>
      </>
    );
  }
}
