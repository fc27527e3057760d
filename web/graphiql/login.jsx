// A token that is pasted here goes to the server, which answers with a session cookie; the page keeps it nowhere.
import { useState } from "react";

export function Login() {
  const [refusal, setRefusal] = useState("");
  const submit = async (event) => {
    event.preventDefault();
    setRefusal("");
    try {
      const body = new URLSearchParams(new FormData(event.target));
      const response = await fetch(new URL("login", location.href), { method: "POST", body, credentials: "same-origin" });
      if (response.ok) location.reload();
      else setRefusal(response.status === 401 ? "This token is not valid." : `The server refused: ${response.status}.`);
    } catch {
      setRefusal("The server can't be reached.");
    }
  };
  return (
    <form className="login" onSubmit={submit}>
      <label htmlFor="token">Not logged in: open the address that the server printed at its start, or paste a token.</label>
      <input id="token" name="token" type="password" autoComplete="off" placeholder="Token" required />
      <button>Log in</button>
      <span role="alert">{refusal}</span>
    </form>
  );
}

/** The server says in the page whether this browser sent a session cookie: without one nobody can log out. */
const HAS_SESSION = document.documentElement.dataset.session !== undefined;

export function Logout() {
  const [refusal, setRefusal] = useState("");
  const leave = async () => {
    try {
      const response = await fetch(new URL("logout", location.href), { method: "POST", credentials: "same-origin" });
      if (response.ok) location.reload();
      else setRefusal(`Still logged in: the server answered with ${response.status}.`);
    } catch {
      setRefusal("Still logged in: the server can't be reached.");
    }
  };
  if (!HAS_SESSION) return null;
  return (
    <>
      <button className="logout" onClick={leave}>
        Log out
      </button>
      <span role="alert">{refusal}</span>
    </>
  );
}
