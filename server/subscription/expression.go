package subscription

import (
	"context"
	"errors"
	"fmt"
	"regexp/syntax"
	"strconv"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/overloads"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

const (
	// maxExpression is the longest expression, in bytes.
	maxExpression = 4096

	// costLimit is the most that evaluating an expression once may cost, in
	// CEL's units: about one for each step, and one for every ten characters
	// that are searched. Searching a message of 1 MiB once is about 105,000.
	// Only cost counts, never time: whether an event matches must not depend on
	// how busy the machine is.
	costLimit = 120_000

	// maxRegexp is the largest program that a regular expression may become, in
	// instructions. Matching takes time in proportion to it, at worst.
	maxRegexp = 1000

	// interruptEvery is how many steps of a loop go by between two looks at the
	// context.
	interruptEvery = 100
)

// An expression is a compiled CEL expression over an event. It is safe for
// concurrent use.
type expression struct{ program cel.Program }

// environment is shared by all expressions. It is made for the first one: it
// takes memory and time that a gateway without expressions should not spend.
//
// The string extensions are left out on purpose: one call of replace or join
// can make a string of gigabytes before its cost is counted.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Container("sluice.v1"),
		cel.Types(&sluicev1.Event{}),
		cel.Variable("event", cel.ObjectType("sluice.v1.Event")),
		cel.ParserExpressionSizeLimit(maxExpression),
	)
})

func compileExpression(source string) (*expression, error) {
	if len(source) > maxExpression {
		return nil, invalidExpression("must not be longer than " + strconv.Itoa(maxExpression) + " bytes")
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("make the CEL environment: %w", err)
	}
	checked, issues := env.Compile(source)
	if issues.Err() != nil {
		return nil, invalidExpression(issues.Err().Error())
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, invalidExpression("must be a bool, is " + t.String())
	}
	for _, call := range ast.MatchDescendants(ast.NavigateAST(checked.NativeRep()), ast.FunctionMatcher(overloads.Matches)) {
		args := call.AsCall().Args()
		if err := checkPattern(args[len(args)-1]); err != nil {
			return nil, err
		}
	}
	switch cost, err := env.EstimateCost(checked, unknownSizes{}); {
	case err != nil:
		return nil, invalidExpression(err.Error())
	case cost.Min > costLimit:
		return nil, invalidExpression("costs at least " + strconv.FormatUint(cost.Min, 10) + " for each event, the limit is " + strconv.Itoa(costLimit))
	}
	program, err := env.Program(checked,
		cel.EvalOptions(cel.OptOptimize),
		cel.CostLimit(costLimit),
		cel.InterruptCheckFrequency(interruptEvery),
	)
	if err != nil {
		return nil, invalidExpression(err.Error())
	}
	return &expression{program: program}, nil
}

// checkPattern checks the regular expression of a call of matches. It must be a
// literal: the text of a chat must not become a program. (cel-go has a limit of
// its own, cel.RegexProgramSizeLimit, which panics on patterns such as "a{2}".)
func checkPattern(e ast.Expr) error {
	if e.Kind() != ast.LiteralKind {
		return invalidExpression("the pattern of matches must be a literal")
	}
	pattern, _ := e.AsLiteral().Value().(string)
	parsed, err := syntax.Parse(pattern, syntax.Perl) // as regexp.Compile does
	if err != nil {
		return invalidExpression(err.Error())
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return invalidExpression(err.Error())
	}
	if len(program.Inst) > maxRegexp {
		return invalidExpression("the pattern of matches must not be larger than " + strconv.Itoa(maxRegexp) + " instructions")
	}
	return nil
}

// eval returns what the expression says of e. The error is the cause of the end of
// ctx, or ErrEvaluation.
func (x *expression) eval(ctx context.Context, e *sluicev1.Event) (bool, error) {
	out, _, err := x.program.ContextEval(ctx, activation{e})
	switch {
	case err != nil && ctx.Err() != nil:
		return false, context.Cause(ctx)
	case err != nil:
		return false, fmt.Errorf("%w: %w", ErrEvaluation, err)
	}
	ok, _ := out.Value().(bool)
	return ok, nil
}

// ErrEvaluation reports that an expression failed for an event, or cost too much.
var ErrEvaluation = errors.New("subscription: the expression fails for the event")

// An activation has the one variable of an expression.
type activation struct{ event *sluicev1.Event }

func (a activation) ResolveName(name string) (any, bool) { return a.event, name == "event" }

func (a activation) Parent() cel.Activation { return nil }

// unknownSizes is a cost estimator that knows nothing of events, so that only
// what an expression costs for any event counts against it.
type unknownSizes struct{}

func (unknownSizes) EstimateSize(checker.AstNode) *checker.SizeEstimate { return nil }

func (unknownSizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

func invalidExpression(message string) error {
	return invalidFilter("filter.expression", message)
}
