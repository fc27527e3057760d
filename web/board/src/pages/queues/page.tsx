export function QueuesPage() {
  return (
    <>
      <h1 tabIndex={-1}>Queues</h1>
    </>
  );
}
