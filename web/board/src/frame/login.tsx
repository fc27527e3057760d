// A token that is pasted here goes to the server, which answers with a session cookie; the page keeps it nowhere.
import { type FormEvent, useEffect, useState } from "react";

export function Login() {
  const [refusal, setRefusal] = useState("");
  useEffect(() => {
    document.title = "Log in: Merlin board"; // and not the name of a run
  }, []);
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    setRefusal("");
    const token = String(new FormData(event.currentTarget).get("token"));
    try {
      const body = new URLSearchParams({ token });
      const response = await fetch("login", { method: "POST", body, credentials: "same-origin" });
      if (response.ok) location.reload();
      else setRefusal(response.status === 401 ? "This token is not valid." : `The server refused: ${response.status}.`);
    } catch {
      setRefusal("The server can't be reached.");
    }
  };
  return (
    <main className="login">
      <h1>Log in</h1>
      <p>You are not logged in, or not any more. The view that you asked for comes up after you log in.</p>
      <form onSubmit={submit}>
        <label htmlFor="token">Open the address that the server printed at its start, or paste a token:</label>
        <input id="token" name="token" type="password" autoComplete="off" required autoFocus />
        <button className="primary">Log in</button>
        <p role="alert">{refusal}</p>
      </form>
    </main>
  );
}

/** Why this browser is still logged in; if it is not, the page is loaded anew. */
export async function logOut(): Promise<string> {
  try {
    const response = await fetch("logout", { method: "POST", credentials: "same-origin" });
    if (!response.ok) return `You are still logged in: the server answered with ${response.status}.`;
    location.reload();
    return "";
  } catch {
    return "You are still logged in: the server can't be reached.";
  }
}
