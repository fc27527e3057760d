export function WorkersPage() {
  return (
    <>
      <h1 tabIndex={-1}>Workers</h1>
    </>
  );
}
