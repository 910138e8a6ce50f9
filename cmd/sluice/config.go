package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluicegate/sluice/server"
)

const configHelp = `Every setting is a flag, an environment variable and a key of the YAML file
that --config names: --data-dir is SLUICE_DATA_DIR and data_dir. A flag wins
over a variable, and a variable over the file. "sluice config check" shows what
comes out.`

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Look at the configuration",
	}
	cmd.AddCommand(newConfigCheckCommand())
	return cmd
}

func newConfigCheckCommand() *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Show the configuration that serve would run with, or everything that is wrong with it",
		Long: `Check reads the configuration as serve does, starts nothing, and prints it as a
YAML file: which engine keeps the log and what that engine's settings come to,
then each setting with where it came from, secrets masked. If something is wrong
it prints every problem and exits with 1.

` + configHelp,
		Example: `  sluice config check --config sluice.yaml`,
		Args:    cobra.NoArgs,
	}
	flags.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, origins, err := flags.load()
		if err != nil {
			return err
		}
		return cfg.WriteYAML(cmd.OutOrStdout(), origins)
	}
	return cmd
}

// configFlags are the flags of a command that needs the configuration.
type configFlags struct {
	file  string
	given map[string]string // by key
}

// add adds the flags to cmd.
func (f *configFlags) add(cmd *cobra.Command) {
	f.given = make(map[string]string)
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&f.file, "config", "", "YAML `FILE` to read; also SLUICE_CONFIG")
	for _, s := range server.Settings() {
		flag := cmd.Flags().VarPF(settingFlag{s, f.given}, s.Flag(), "", s.Usage)
		if s.Switch() {
			flag.NoOptDefVal = "true"
		}
	}
}

// load returns the configuration; the error says everything that is wrong.
func (f *configFlags) load() (server.Config, server.Origins, error) {
	cfg, origins, err := server.LoadConfig(server.Inputs{File: f.file, Environ: os.Environ(), Flags: f.given})
	if err != nil {
		return cfg, origins, fmt.Errorf("the configuration is wrong:\n  %s", strings.ReplaceAll(err.Error(), "\n", "\n  "))
	}
	return cfg, origins, nil
}

// settingFlag is a flag that remembers that it was given. It does not parse:
// the configuration is judged as a whole.
type settingFlag struct {
	server.Setting
	given map[string]string
}

// Set implements pflag.Value.
func (f settingFlag) Set(text string) error {
	if before, ok := f.given[f.Key]; ok && f.Repeatable() {
		text = before + ";" + text
	}
	f.given[f.Key] = text
	return nil
}

// String implements pflag.Value. It is the default in the help text.
func (f settingFlag) String() string { return f.Default() }

// Type implements pflag.Value.
func (f settingFlag) Type() string {
	if f.Switch() {
		return "bool"
	}
	return f.Arg
}
