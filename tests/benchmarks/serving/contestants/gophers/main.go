// Serves records from memory by graph-gophers: `gophers RECORDS`, a file that records.py has written.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/graph-gophers/graphql-go"
	"github.com/graph-gophers/graphql-go/relay"
)

const schema = `
schema { query: Query }
enum RunStatus { INITIALIZED QUEUED RUNNING COMPLETED CANCELLED FAILED UNKNOWN }
type Query { runs(first: Int!): RunConnection! }
type RunConnection { nodes: [Run!]! }
type Run { id: ID! workspace: String! status: RunStatus! queues: [String!]! study: Study workers: [LogicalWorker!]! }
type Study { id: ID! name: String! }
type LogicalWorker { id: ID! name: String! queues: [String!]! }
`

type study struct {
	ID   graphql.ID
	Name string
}

type worker struct {
	ID     graphql.ID
	Name   string
	Queues []string
}

type run struct {
	ID        graphql.ID
	Workspace string
	Status    string
	Queues    []string
	Study     *study
	Workers   []*worker
}

type connection struct {
	Nodes []*run
}

type query struct {
	all []*run
}

func (q *query) Runs(args struct{ First int32 }) connection {
	count := int(args.First)
	if count > len(q.all) {
		count = len(q.all)
	}
	return connection{q.all[:count]}
}

type record struct {
	ID        graphql.ID
	Workspace string
	Status    string
	Queues    []string
	Study     *int
	Workers   []int
}

type records struct {
	Studies []*study
	Workers []*worker
	Runs    []record
}

func load(name string) (*query, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var found records
	if err := json.NewDecoder(file).Decode(&found); err != nil {
		return nil, err
	}
	all := make([]*run, 0, len(found.Runs))
	for _, one := range found.Runs {
		made := &run{ID: one.ID, Workspace: one.Workspace, Status: one.Status, Queues: one.Queues}
		if one.Study != nil {
			made.Study = found.Studies[*one.Study]
		}
		for _, place := range one.Workers {
			made.Workers = append(made.Workers, found.Workers[place])
		}
		all = append(all, made)
	}
	return &query{all}, nil
}

func serve(name string) error {
	root, err := load(name)
	if err != nil {
		return err
	}
	parsed, err := graphql.ParseSchema(schema, root, graphql.UseFieldResolvers())
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("http://%s/graphql\n", listener.Addr())
	http.Handle("/graphql", &relay.Handler{Schema: parsed})
	return http.Serve(listener, nil)
}

func main() {
	if err := serve(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
