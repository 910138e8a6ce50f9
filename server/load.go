package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
)

// envPrefix starts the names of the variables that configure Sluice.
const envPrefix = "SLUICE_"

// configEnv names the configuration file when no flag does.
const configEnv = envPrefix + "CONFIG"

// Inputs are where a configuration comes from: defaults, then the file, then
// the environment, then flags. The later wins. An empty variable counts as not
// set.
type Inputs struct {
	File    string            // path of a YAML file; "" is $SLUICE_CONFIG, or none
	Environ []string          // as os.Environ returns it
	Flags   map[string]string // by Setting.Key; those that were given
}

// Origins says where the values of a configuration came from, by Setting.Key:
// "file config.yaml", "SLUICE_DATA_DIR", "--data-dir". What is missing is a
// default.
type Origins map[string]string

// LoadConfig returns the configuration that in describes. The error reports
// every problem, in a line each; the Config is as far as it could be read.
func LoadConfig(in Inputs) (Config, Origins, error) {
	file, fileErr := readFile(in)
	env, envErr := readEnviron(in.Environ)
	flags := layer{}
	for key, text := range in.Flags {
		flags[key] = given{text, "--" + lookup(key).Flag()}
	}

	cfg, origins := DefaultConfig(), Origins{}
	cfg.inputs = &in
	errs := []error{fileErr, envErr}
	merged := koanf.New(".")
	for _, layer := range []layer{file, env, flags} {
		values := make(map[string]any, len(layer))
		for key, given := range layer {
			values[key] = given.value
			origins[key] = given.origin
		}
		errs = append(errs, merged.Load(confmap.Provider(values, ""), nil))
	}
	for _, s := range settings {
		if !merged.Exists(s.Key) {
			continue
		}
		errs = append(errs, prefixed(fmt.Sprintf("%s (from %s): ", s.Key, origins[s.Key]), s.set(&cfg, merged.Get(s.Key))))
	}
	errs = append(errs, cfg.Validate())
	return cfg, origins, errors.Join(errs...)
}

// A layer is what one place says, by key.
type layer map[string]given

type given struct {
	value  any
	origin string
}

// readFile reads the configuration file, if there is one.
func readFile(in Inputs) (layer, error) {
	path, named := in.File, "--config"
	if path == "" {
		named = configEnv
		for _, entry := range in.Environ {
			if value, ok := strings.CutPrefix(entry, configEnv+"="); ok {
				path = value
			}
		}
	}
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path) //nolint:gosec // the user names the file
	if err != nil {
		return nil, fmt.Errorf("%s: %w", named, err)
	}
	values, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", path, err)
	}
	found := make(layer, len(values))
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if lookup(key).Key == "" {
			errs = append(errs, fmt.Errorf("file %s: %w", path, unknown("key", key, names(func(s Setting) string { return s.Key }))))
			continue
		}
		found[key] = given{values[key], "file " + path}
	}
	return found, errors.Join(errs...)
}

// readEnviron reads the variables. Those that Kubernetes sets for a service
// called sluice have the prefix, too, and are passed over.
func readEnviron(environ []string) (layer, error) {
	found := make(layer)
	var errs []error
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if value == "" {
			continue // as good as not set
		}
		i := slices.IndexFunc(settings, func(s Setting) bool { return s.Env() == name })
		switch {
		case i >= 0:
			found[settings[i].Key] = given{value, name}
		case !strings.HasPrefix(name, envPrefix), name == configEnv,
			name == envPrefix+"PORT", strings.HasPrefix(name, envPrefix+"PORT_"), strings.HasPrefix(name, envPrefix+"SERVICE_"):
		default:
			errs = append(errs, unknown("variable", name, names(Setting.Env)))
		}
	}
	return found, errors.Join(errs...)
}

// lookup returns the setting with the key; the zero Setting when there is none.
func lookup(key string) Setting {
	if i := slices.IndexFunc(settings, func(s Setting) bool { return s.Key == key }); i >= 0 {
		return settings[i]
	}
	return Setting{}
}

// names returns a name of every setting.
func names(name func(Setting) string) []string {
	all := make([]string, 0, len(settings))
	for _, s := range settings {
		all = append(all, name(s))
	}
	return all
}

// prefixed puts prefix before each line of err, which may be nil.
func prefixed(prefix string, err error) error {
	if err == nil {
		return nil
	}
	return errors.New(prefix + strings.ReplaceAll(err.Error(), "\n", "\n"+prefix))
}

// unknown reports a name that is none of known, and which it may have meant.
func unknown(what, name string, known []string) error {
	nearest := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
	if distance(name, nearest) > len(nearest)/2 {
		return fmt.Errorf("unknown %s %s; known are %s", what, name, strings.Join(known, ", "))
	}
	return fmt.Errorf("unknown %s %s, did you mean %s?", what, name, nearest)
}

// distance is how many letters must be changed, added or removed to make b of
// a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// WriteYAML writes c as a configuration file, with secrets masked and each
// line's origin as a comment. Comments at its beginning say which engine keeps
// the log.
func (c Config) WriteYAML(w io.Writer, origins Origins) error {
	var out bytes.Buffer
	for _, note := range c.engineNotes() {
		fmt.Fprintln(&out, "#", note)
	}
	for _, s := range settings {
		value := s.show(&c)
		if text, ok := value.(string); ok && text == "" {
			continue // unset
		}
		text, err := yaml.Parser().Marshal(map[string]any{s.Key: value})
		if err != nil {
			return fmt.Errorf("write %s: %w", s.Key, err)
		}
		origin := origins[s.Key]
		if origin == "" {
			origin = "default"
		}
		first, rest, _ := strings.Cut(string(text), "\n")
		fmt.Fprintf(&out, "%-40s # %s\n%s", first, origin, rest)
	}
	_, err := w.Write(out.Bytes())
	return err
}
