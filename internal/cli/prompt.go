package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// question asks for the value of a flag that was not given.
type question struct {
	flag   string // without the dashes
	prompt string
	value  *string
	// fallback is taken for an empty answer, and unasked when not interactive.
	fallback string
	// optional questions may be answered with nothing.
	optional bool
}

// ask asks for those values that are still empty. When nothing may be asked, a
// value that is needed is an error that names its flag.
func (s *session) ask(questions ...question) error {
	for _, q := range questions {
		if *q.value != "" {
			continue
		}
		if !s.interactive() {
			if q.fallback == "" && !q.optional {
				return usagef("--%s is needed", q.flag)
			}
			*q.value = q.fallback
			continue
		}
		for {
			answer, err := s.readLine(q.text())
			needed := q.fallback == "" && !q.optional
			if err != nil && (needed || !errors.Is(err, errNoAnswer)) {
				return fmt.Errorf("%w; give it with --%s", err, q.flag)
			}
			if answer == "" {
				answer = q.fallback
			}
			*q.value = answer
			if answer != "" || !needed {
				break
			}
		}
	}
	return nil
}

func (q question) text() string {
	switch {
	case q.fallback != "":
		return fmt.Sprintf("%s (default %s): ", q.prompt, q.fallback)
	case q.optional:
		return q.prompt + " (leave blank for none): "
	default:
		return q.prompt + ": "
	}
}

// confirm returns errCancelled unless the user agrees, or nothing may be asked.
func (s *session) confirm(format string, args ...any) error {
	if !s.interactive() {
		return nil
	}
	if format != "" {
		fmt.Fprintf(s.env.Stderr, format+"\n", args...)
	}
	yes, err := s.yesNo("Are you sure [y/n]? ")
	if err != nil {
		return fmt.Errorf("%w; to go on without being asked, use \"pleiad -n\"", err)
	}
	if !yes {
		return errCancelled
	}
	return nil
}

// yesNo asks until it gets y, yes, n or no.
func (s *session) yesNo(prompt string) (bool, error) {
	for {
		answer, err := s.readLine(prompt)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(answer) {
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
	}
}

var errNoAnswer = errors.New("the input ended before the question was answered")

// readLine writes a prompt and reads one line, byte by byte, so that what
// follows stays there for whoever reads next.
func (s *session) readLine(prompt string) (string, error) {
	fmt.Fprint(s.env.Stderr, prompt)
	var line strings.Builder
	var b [1]byte
	for {
		n, err := s.env.Stdin.Read(b[:])
		if n == 1 && b[0] == '\n' {
			return strings.TrimSpace(line.String()), nil
		}
		if n == 1 {
			line.WriteByte(b[0])
			if line.Len() > 64<<10 {
				return "", errors.New("the answer is longer than 64 KiB")
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(s.env.Stderr)
			if answer := strings.TrimSpace(line.String()); answer != "" {
				return answer, nil
			}
			return "", errNoAnswer
		}
		if err != nil {
			return "", fmt.Errorf("reading the answer: %w", err)
		}
	}
}

// readSecret reads a secret: from the named file, or by a question without echo.
func (s *session) readSecret(file, fileFlag, prompt string) (string, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("--%s: %w", fileFlag, err)
		}
		secret := strings.TrimSpace(string(b))
		if secret == "" {
			return "", fmt.Errorf("--%s: %s is empty", fileFlag, file)
		}
		return secret, nil
	}
	if !s.interactive() {
		return "", usagef("--%s is needed", fileFlag)
	}
	if f, ok := s.env.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return s.readHidden(f, prompt)
	}
	secret, err := s.readLine(prompt + ": ")
	if err != nil {
		return "", fmt.Errorf("%w; give it with --%s", err, fileFlag)
	}
	return secret, nil
}

// readHidden reads a line from a terminal without echo, which is switched on
// again also when the user interrupts the question.
func (s *session) readHidden(terminal *os.File, prompt string) (string, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("reading the terminal's state: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	disarm := context.AfterFunc(ctx, func() {
		_ = term.Restore(fd, before)
		os.Exit(ExitError) // the read below cannot be interrupted
	})
	defer disarm()
	fmt.Fprint(s.env.Stderr, prompt+": ")
	b, err := term.ReadPassword(fd)
	fmt.Fprintln(s.env.Stderr)
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
