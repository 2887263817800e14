package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	maxRequest = 64 << 10
	maxProof   = 63
)

// A witness of one log; latest is what it last cosigned, of size 0 before that.
type witness struct {
	log    note.Verifier
	signer note.Signer

	mu     sync.Mutex
	latest log.Checkpoint
}

// A refusal is an answer other than 200.
type refusal struct {
	status int
	says   string
}

func (r refusal) Error() string { return r.says }

func refuse(status int, format string, args ...any) error {
	return refusal{status, fmt.Sprintf(format, args...)}
}

func (w *witness) ServeHTTP(out http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(out, request.Body, maxRequest))
	if err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	cosignature, err := w.addCheckpoint(body)
	var refused refusal
	switch {
	case errors.As(err, &refused) && refused.status == http.StatusConflict:
		out.Header().Set("Content-Type", "text/x.tlog.size")
		out.WriteHeader(refused.status)
		fmt.Fprintln(out, refused.says)
	case errors.As(err, &refused):
		http.Error(out, refused.says, refused.status)
	case err != nil:
		http.Error(out, err.Error(), http.StatusInternalServerError)
	default:
		_, _ = out.Write(cosignature)
	}
}

// addCheckpoint checks in the order that tlog-witness gives, and answers with the cosignature's line.
func (w *witness) addCheckpoint(body []byte) ([]byte, error) {
	old, path, signed, err := parse(body)
	if err != nil {
		return nil, err
	}
	next, err := w.authentic(signed)
	if err != nil {
		return nil, err
	}
	if old > next.Size {
		return nil, refuse(http.StatusBadRequest, "old size %d is above the checkpoint's %d", old, next.Size)
	}
	// Checked, signed and kept in one piece: of two requests from the same size only one goes on.
	w.mu.Lock()
	defer w.mu.Unlock()
	if old != w.latest.Size {
		return nil, refuse(http.StatusConflict, "%d", w.latest.Size)
	}
	before := w.latest.Hash
	if old == 0 {
		before = rfc6962.DefaultHasher.EmptyRoot()
	}
	err = proof.VerifyConsistency(rfc6962.DefaultHasher, old, next.Size, path, before, next.Hash)
	if err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "%v", err)
	}
	text := string(next.Marshal())
	cosigned, err := note.Sign(&note.Note{Text: text}, w.signer)
	if err != nil {
		return nil, err
	}
	w.latest = *next
	return cosigned[len(text)+1:], nil
}

// authentic is the checkpoint of a note that the log signed.
func (w *witness) authentic(signed []byte) (*log.Checkpoint, error) {
	if origin, _, _ := strings.Cut(string(signed), "\n"); origin != w.log.Name() {
		return nil, refuse(http.StatusNotFound, "no log of origin %q is witnessed here", origin)
	}
	opened, err := note.Open(signed, note.VerifierList(w.log))
	var unsigned *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unsigned) || errors.As(err, &invalid):
		return nil, refuse(http.StatusForbidden, "%v", err)
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "%v", err)
	}
	var next log.Checkpoint
	rest, err := next.Unmarshal([]byte(opened.Text))
	// Whoever writes sizes with leading zeroes or adds lines would have this witness cosign another text.
	if err != nil || len(rest) > 0 || string(next.Marshal()) != opened.Text || len(next.Hash) != tlog.HashSize {
		return nil, refuse(http.StatusBadRequest, "the note is not a checkpoint of three lines")
	}
	return &next, nil
}

// parse takes a request apart: `old <size>`, the proof's hashes, an empty line, the note.
func parse(body []byte) (old uint64, path [][]byte, signed []byte, err error) {
	head, signed, found := bytes.Cut(body, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	number, named := strings.CutPrefix(lines[0], "old ")
	if old, err = strconv.ParseUint(number, 10, 63); err != nil || !found || !named || strconv.FormatUint(old, 10) != number {
		return 0, nil, nil, refuse(http.StatusBadRequest, "a request begins with the line old <size>")
	}
	if len(lines)-1 > maxProof {
		return 0, nil, nil, refuse(http.StatusBadRequest, "a proof has at most %d hashes", maxProof)
	}
	for _, line := range lines[1:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return 0, nil, nil, refuse(http.StatusBadRequest, "%v", err)
		}
		path = append(path, hash[:])
	}
	return old, path, signed, nil
}
