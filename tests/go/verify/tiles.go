package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/tlog"
)

// C2SP tlog-tiles: 256 hashes a tile, 256 entries a bundle.
const (
	height = 8
	width  = 1 << height
)

// A source reads a log's files; width 0 means a full tile or bundle.
type source interface {
	ReadCheckpoint(ctx context.Context) ([]byte, error)
	ReadTile(ctx context.Context, level, index uint64, width uint8) ([]byte, error)
	ReadEntryBundle(ctx context.Context, index uint64, width uint8) ([]byte, error)
}

func open(where, token string) (source, error) {
	if !strings.HasPrefix(where, "http://") && !strings.HasPrefix(where, "https://") {
		return &client.FileFetcher{Root: where}, nil
	}
	root, err := url.Parse(where)
	if err != nil {
		return nil, err
	}
	fetcher, err := client.NewHTTPFetcher(root, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		fetcher.SetAuthorizationHeader("Bearer " + token)
	}
	return fetcher, nil
}

// A tileReader is a source as tlog wants it, which then proves each tile against the tree's root.
type tileReader struct{ from source }

func (r tileReader) Height() int { return height }

func (r tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, len(tiles))
	for i, tile := range tiles {
		data, err := r.from.ReadTile(context.Background(), uint64(tile.L), uint64(tile.N), uint8(tile.W%width))
		if err != nil {
			return nil, err
		}
		// Where the log has grown since, the full tile stands for each of its beginnings.
		found[i] = data[:min(len(data), tile.W*tlog.HashSize)]
	}
	return found, nil
}

func hashReader(at *log.Checkpoint, from source) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: int64(at.Size), Hash: tlog.Hash(at.Hash)}, tileReader{from})
}

// verifyTree proves every tile against the checkpoint, and every entry against its leaf.
func verifyTree(key, token, where string) (string, error) {
	from, err := open(where, token)
	if err != nil {
		return "", err
	}
	data, err := from.ReadCheckpoint(context.Background())
	if err != nil {
		return "", err
	}
	at, err := openCheckpoint(data, key)
	if err != nil {
		return "", err
	}
	if at.Size == 0 && !bytes.Equal(at.Hash, rfc6962.DefaultHasher.EmptyRoot()) {
		return "", errors.New("the root of the empty log is not the empty tree's")
	}
	hashes := hashReader(at, from)
	for begin := uint64(0); begin < at.Size; begin += width {
		if err := verifyBundle(from, hashes, begin, min(width, at.Size-begin)); err != nil {
			return "", fmt.Errorf("entries from %d: %w", begin, err)
		}
	}
	return fmt.Sprintf("%s holds %d entries under its checkpoint", at.Origin, at.Size), nil
}

func verifyBundle(from source, hashes tlog.HashReader, begin, count uint64) error {
	data, err := from.ReadEntryBundle(context.Background(), begin/width, uint8(count%width))
	if err != nil {
		return err
	}
	var bundle api.EntryBundle
	if err := bundle.UnmarshalText(data); err != nil {
		return err
	}
	if uint64(len(bundle.Entries)) < count {
		return fmt.Errorf("the bundle has %d entries, not %d", len(bundle.Entries), count)
	}
	indexes := make([]int64, count)
	for i := range indexes {
		indexes[i] = tlog.StoredHashIndex(0, int64(begin)+int64(i))
	}
	leaves, err := hashes.ReadHashes(indexes)
	if err != nil {
		return err
	}
	for i, leaf := range leaves {
		if tlog.RecordHash(bundle.Entries[i]) != leaf {
			return fmt.Errorf("entry %d is not the one in the tree", begin+uint64(i))
		}
	}
	return nil
}

// consistencyFromTiles makes the proof out of a log's tiles, each proved against the later checkpoint.
func consistencyFromTiles(where, token string, before, after *log.Checkpoint) ([][]byte, error) {
	if before.Size == 0 || before.Size > after.Size {
		return nil, nil // nothing to prove, or nothing that a proof could show: the verifier says so
	}
	from, err := open(where, token)
	if err != nil {
		return nil, err
	}
	tree, err := tlog.ProveTree(int64(after.Size), int64(before.Size), hashReader(after, from))
	if err != nil {
		return nil, err
	}
	path := make([][]byte, len(tree))
	for i := range tree {
		path[i] = tree[i][:]
	}
	return path, nil
}
