// Go: opens a model, streams a greedy completion, prints which experts worked.
package main

import (
	"context"
	"fmt"
	"os"

	"example/mixtral"
)

// A line for each layer: which percentage of its tokens' choices fell on each expert.
func printExperts(counts [][]uint64) {
	fmt.Print("\n\nshare of each expert (%)\n")
	for layer, row := range counts {
		var total uint64
		for _, count := range row {
			total += count
		}
		fmt.Printf("layer %d:", layer)
		for _, count := range row {
			fmt.Printf("%4d", (100*count+total/2)/total)
		}
		fmt.Println()
	}
}

func run(path string) error {
	model, err := mixtral.Open(path)
	if err != nil {
		return err
	}
	defer model.Close()
	session, err := model.NewSession(0) // greedy
	if err != nil {
		return err
	}
	defer session.Close()
	tokens, err := model.Tokenize("RETURN VALUE\n       On success,")
	if err != nil {
		return err
	}
	if err := session.Feed(tokens); err != nil {
		return err
	}
	err = session.Generate(context.Background(), 48, func(_ int32, text string) bool {
		_, err := os.Stdout.WriteString(text)
		return err == nil
	})
	if err != nil {
		return err
	}
	counts, err := model.RoutingCounts()
	if err != nil {
		return err
	}
	printExperts(counts)
	return nil
}

func main() {
	path := "examples/models/tiny"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	if err := run(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
