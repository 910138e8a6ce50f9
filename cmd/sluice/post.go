package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func newPostCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "post FILE...",
		Short: "Send files as callbacks",
		Long: `Send the bytes of each file as the vendor would post them, over gRPC, and print
where they stand in the log. "-" is standard input. A file that cannot be sent
does not keep the others back.`,
		Example: `  sluice post callback.json
  curl -s https://example.com/callback.json | sluice post --path /acme -`,
		Args: cobra.MinimumNArgs(1),
	}
	g := addGatewayFlags(cmd)
	path := cmd.Flags().String("path", "/", "path to post to: the source's, and below it the kind of callback")
	cmd.RunE = func(cmd *cobra.Command, files []string) error {
		c, err := g.dial()
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		failed := 0
		for _, file := range files {
			res, err := post(cmd.Context(), c, *path, file, cmd.InOrStdin())
			if err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", file, g.explain(err))
				failed++
				continue
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", file, outcome(res))
		}
		if failed > 0 {
			return fmt.Errorf("%d of %d not stored", failed, len(files))
		}
		return nil
	}
	return cmd
}

// post sends one file, or what stdin holds where file is "-".
func post(ctx context.Context, c *client.Client, path, file string, stdin io.Reader) (*sluicev1.ReceiveCallbackResponse, error) {
	body, err := read(file, stdin)
	if err != nil {
		return nil, err
	}
	return c.Post(ctx, path, body)
}

func read(file string, stdin io.Reader) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(file) //nolint:gosec // the user names the file
}

// outcome returns what became of a callback.
func outcome(res *sluicev1.ReceiveCallbackResponse) string {
	sequences := make([]string, len(res.GetSequences()))
	for i, n := range res.GetSequences() {
		sequences[i] = strconv.FormatUint(n, 10)
	}
	where := strings.Join(sequences, ", ")
	switch {
	case res.GetDuplicate():
		return strings.TrimSpace("duplicate of " + where)
	case where == "":
		return "quarantined: it is not JSON"
	}
	return "stored as " + where
}
