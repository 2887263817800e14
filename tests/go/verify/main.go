// Verify checks what the bus publishes with other people's code alone: golang.org/x/mod/sumdb and transparency-dev.
//
//	verify proof --key VKEY [--policy FILE] FILE    a .tlog-proof whose extra line is the entry
//	verify consistency --key VKEY (--tiles LOG [--token TOKEN] | --lines FILE) OLD NEW    two checkpoints
//	verify batch FILE                               records under their batches' signatures, in JSON
//	verify tree --key VKEY [--token TOKEN] LOG      a whole log in tiles
//
// LOG is a folder or a URL. One sentence on stdout; exit 0 if it holds, 1 if not, 2 for a wrong call.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	tlogproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/formats/witness"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const usage = "usage: verify proof|consistency|batch|tree [flags] FILE..."

func main() {
	if len(os.Args) < 2 {
		fail(2, usage)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	key := flags.String("key", "", "the log's verifier key")
	policy := flags.String("policy", "", "a tlog-policy file, whose quorum of witnesses must have cosigned")
	tiles := flags.String("tiles", "", "the log, out of whose tiles the consistency is proved")
	lines := flags.String("lines", "", "a file of a consistency proof's hashes, one a line in base64")
	token := flags.String("token", "", "the bearer token for a log over HTTP")
	_ = flags.Parse(os.Args[2:])

	var says string
	var err error
	switch args := flags.Args(); {
	case flags.Name() == "proof" && len(args) == 1:
		says, err = verifyProof(*key, *policy, args[0])
	case flags.Name() == "consistency" && len(args) == 2:
		says, err = verifyConsistency(*key, *tiles, *token, *lines, args[0], args[1])
	case flags.Name() == "batch" && len(args) == 1:
		says, err = verifyBatch(args[0])
	case flags.Name() == "tree" && len(args) == 1:
		says, err = verifyTree(*key, *token, args[0])
	default:
		fail(2, usage)
	}
	if err != nil {
		fail(1, err.Error())
	}
	fmt.Println(says)
}

// verifyProof takes the leaf from the extra line, so the entry needs no file of its own.
func verifyProof(key, policy, file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var one tlogproof.TLogProof
	if err := one.Unmarshal(data); err != nil {
		return "", err
	}
	if len(one.ExtraData) == 0 {
		return "", errors.New("the proof carries no entry in its extra line")
	}
	at, err := openCheckpoint(one.Checkpoint, key)
	if err != nil {
		return "", err
	}
	if policy != "" {
		if err := checkQuorum(policy, one.Checkpoint); err != nil {
			return "", err
		}
	}
	leaf := tlog.RecordHash(one.ExtraData)
	path := make([][]byte, len(one.Hashes))
	record := make(tlog.RecordProof, len(one.Hashes))
	for i, hash := range one.Hashes {
		path[i], record[i] = hash[:], tlog.Hash(hash)
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, one.Index, at.Size, leaf[:], path, at.Hash); err != nil {
		return "", err
	}
	if err := tlog.CheckRecord(record, int64(at.Size), tlog.Hash(at.Hash), int64(one.Index), leaf); err != nil {
		return "", err
	}
	return fmt.Sprintf("entry %d is in %s of size %d", one.Index, at.Origin, at.Size), nil
}

func verifyConsistency(key, tiles, token, lines, oldFile, newFile string) (string, error) {
	before, err := readCheckpoint(oldFile, key)
	if err != nil {
		return "", fmt.Errorf("%s: %w", oldFile, err)
	}
	after, err := readCheckpoint(newFile, key)
	if err != nil {
		return "", fmt.Errorf("%s: %w", newFile, err)
	}
	var path [][]byte
	if tiles != "" {
		path, err = consistencyFromTiles(tiles, token, before, after)
	} else {
		path, err = readHashes(lines)
	}
	if err != nil {
		return "", err
	}
	hasher := rfc6962.DefaultHasher
	if err := proof.VerifyConsistency(hasher, before.Size, after.Size, path, before.Hash, after.Hash); err != nil {
		return "", err
	}
	// A second opinion; it knows no proof from the empty tree.
	if before.Size > 0 {
		tree := make(tlog.TreeProof, len(path))
		for i, hash := range path {
			tree[i] = tlog.Hash(hash)
		}
		err := tlog.CheckTree(tree, int64(after.Size), tlog.Hash(after.Hash), int64(before.Size), tlog.Hash(before.Hash))
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s of size %d goes on to size %d", after.Origin, before.Size, after.Size), nil
}

// A batchProof is what stands behind one record or entry; leaf is its leaf hash.
type batchProof struct {
	Origin    string     `json:"origin"`
	Size      uint64     `json:"size"`
	Index     uint64     `json:"index"`
	Leaf      hexBytes   `json:"leaf"`
	Path      []hexBytes `json:"path"`
	Signature hexBytes   `json:"signature"`
	PublicKey hexBytes   `json:"public_key"`
}

// verifyBatch makes each batch's signed text a note, as it is one but for the key's name in the signature's line.
func verifyBatch(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var records []batchProof
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&records); err != nil {
		return "", err
	}
	if len(records) == 0 {
		return "", errors.New("the file holds no record")
	}
	for i, record := range records {
		if err := record.verify(); err != nil {
			return "", fmt.Errorf("record %d: %w", i, err)
		}
	}
	return fmt.Sprintf("%d records stand under their batches' signatures", len(records)), nil
}

func (r batchProof) verify() error {
	path := make([][]byte, len(r.Path))
	for i, hash := range r.Path {
		path[i] = hash
	}
	root, err := proof.RootFromInclusionProof(rfc6962.DefaultHasher, r.Index, r.Size, r.Leaf, path)
	if err != nil {
		return err
	}
	vkey, err := note.NewEd25519VerifierKey(r.Origin, []byte(r.PublicKey))
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	text := log.Checkpoint{Origin: r.Origin, Size: r.Size, Hash: root}.Marshal()
	id := verifier.KeyHash()
	line := append([]byte{byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}, r.Signature...)
	signed := fmt.Sprintf("%s\n— %s %s\n", text, r.Origin, base64.StdEncoding.EncodeToString(line))
	_, err = note.Open([]byte(signed), note.VerifierList(verifier))
	return err
}

func readCheckpoint(file, key string) (*log.Checkpoint, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return openCheckpoint(data, key)
}

// openCheckpoint wants the log's signature under it.
func openCheckpoint(data []byte, key string) (*log.Checkpoint, error) {
	verifier, err := fnote.NewVerifier(key)
	if err != nil {
		return nil, err
	}
	at, _, _, err := log.ParseCheckpoint(data, verifier.Name(), verifier)
	if err != nil {
		return nil, err
	}
	if len(at.Hash) != tlog.HashSize {
		return nil, fmt.Errorf("the root has %d bytes", len(at.Hash))
	}
	return at, nil
}

func checkQuorum(policy string, checkpoint []byte) error {
	data, err := os.ReadFile(policy)
	if err != nil {
		return err
	}
	quorum, err := witness.ParsePolicy(data)
	if err != nil {
		return err
	}
	if !quorum.Satisfied(checkpoint) {
		return errors.New("the policy's quorum of witnesses has not cosigned")
	}
	return nil
}

func readHashes(file string) ([][]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var hashes [][]byte
	for _, line := range strings.Fields(string(data)) {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, hash[:])
	}
	return hashes, nil
}

func fail(code int, says string) {
	fmt.Println(says)
	os.Exit(code)
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}
