// Witness is a small witness of C2SP tlog-witness: it cosigns checkpoints that go on from the last that it saw.
//
// It keeps its state in memory, for tests. On stdout it prints its verifier key and its URL as one line of JSON.
package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	logKey := flag.String("log-vkey", "", "verifier key of the log to witness; its name is the log's origin")
	keyFile := flag.String("key-file", "", "file of the signer key (PRIVATE+KEY+...); without it a new key is made")
	name := flag.String("name", "witness.example/go", "name of a new key")
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	if err := run(*logKey, *keyFile, *name, *listen); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(logKey, keyFile, name, listen string) error {
	log, err := fnote.NewVerifier(logKey)
	if err != nil {
		return fmt.Errorf("--log-vkey: %w", err)
	}
	skey, err := signerKey(keyFile, name)
	if err != nil {
		return err
	}
	signer, err := fnote.NewSignerForCosignatureV1(skey)
	if err != nil {
		return err
	}
	vkey, err := verifierKey(skey)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	ready := map[string]string{"vkey": vkey, "url": "http://" + listener.Addr().String()}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}
	http.Handle("POST /add-checkpoint", &witness{log: log, signer: signer})
	return http.Serve(listener, nil)
}

func signerKey(file, name string) (string, error) {
	if file == "" {
		skey, _, err := note.GenerateKey(rand.Reader, name)
		return skey, err
	}
	data, err := os.ReadFile(file)
	return strings.TrimSpace(string(data)), err
}

// verifierKey is the cosigner's; the note package has no way from a signer key to it.
func verifierKey(skey string) (string, error) {
	parts := strings.SplitN(skey, "+", 5)
	key, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(key) != 1+ed25519.SeedSize {
		return "", fmt.Errorf("the signer key is not an Ed25519 key of a note")
	}
	public := ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey)
	vkey, err := note.NewEd25519VerifierKey(parts[2], public)
	if err != nil {
		return "", err
	}
	return fnote.VKeyToCosignatureV1(vkey)
}
