export function RunPage() {
  return (
    <>
      <h1 tabIndex={-1}>Run</h1>
    </>
  );
}
