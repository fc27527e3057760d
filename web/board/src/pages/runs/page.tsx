export function RunsPage() {
  return (
    <>
      <h1 tabIndex={-1}>Runs</h1>
    </>
  );
}
