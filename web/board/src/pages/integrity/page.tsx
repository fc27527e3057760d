export function IntegrityPage() {
  return (
    <>
      <h1 tabIndex={-1}>Integrity</h1>
    </>
  );
}
