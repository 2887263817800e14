"use strict";
// Verifies the evidence that stands in this page, with nothing but the browser. The formats: C2SP tlog-proof,
// signed-note, tlog-checkpoint and tlog-cosignature; RFC 6962; Avro binary, one encoding a value; X.509 with Ed25519.
// Everything in the evidence is hostile until checked, and is only ever shown as text.
(() => {
  const root = document.documentElement;
  const at = (id) => document.getElementById(id);
  const evidence = JSON.parse(at("evidence").textContent);

  /** What a check found wrong: a word for machines, a sentence in Chinese and in English. */
  class Wrong extends Error {
    constructor(check, zh, en) {
      super(en);
      Object.assign(this, { check, zh, en });
    }
  }
  const unreadable = (what) => new Wrong("form", `无法解析：${what}`, `cannot be read: ${what}`);

  // Bytes

  const encoder = new TextEncoder();
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const hex = (bytes) => Array.from(bytes, (one) => one.toString(16).padStart(2, "0")).join("");
  const fromHex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
  const equal = (one, other) => one.length === other.length && one.every((byte, n) => byte === other[n]);
  function joined(...parts) {
    const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let end = 0;
    for (const part of parts) { all.set(part, end); end += part.length; }
    return all;
  }
  const toBase64 = (bytes) => btoa(Array.from(bytes, (one) => String.fromCharCode(one)).join(""));
  function fromBase64(text) {
    let binary;
    try { binary = atob(text); } catch { throw unreadable("base64"); }
    if (btoa(binary) !== text) throw unreadable("base64");
    return Uint8Array.from(binary, (one) => one.charCodeAt(0));
  }
  function decimal(text) {
    if (!/^(0|[1-9][0-9]{0,18})$/.test(text)) throw unreadable("number");
    return BigInt(text);
  }

  // Hashes and signatures

  const sha256 = async (...parts) => new Uint8Array(await crypto.subtle.digest("SHA-256", joined(...parts)));
  const leafHash = (data) => sha256([0], data);
  const nodeHash = (left, right) => sha256([1], left, right);

  async function holds(key, signature, message) {
    if (key.length !== 32 || signature.length !== 64) return false;
    const imported = await crypto.subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
    return crypto.subtle.verify({ name: "Ed25519" }, imported, signature, message);
  }

  /** Whether this browser has what it takes: the first test of RFC 8032 holds, and fails when a bit is changed. */
  async function capable() {
    try {
      const key = fromHex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
      const signature = fromHex("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        + "d25bf5f0595bbe24655141438e7a100b");
      return await holds(key, signature, encoder.encode("")) === true
        && await holds(key, signature, encoder.encode("x")) === false
        && hex(await sha256()) === "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    } catch {
      return false;
    }
  }

  /** RFC 9162 §2.1.3.2. */
  async function rootFromPath(leaf, index, size, path) {
    if (index >= size) throw new Wrong("inclusion", "位置超出日志", "the index is outside of the tree");
    let node = leaf, here = index, last = size - 1n;
    for (const sibling of path) {
      if (last === 0n) throw new Wrong("inclusion", "路径过长", "the path is too long");
      if (here & 1n || here === last) {
        node = await nodeHash(sibling, node);
        while (!(here & 1n) && here) { here >>= 1n; last >>= 1n; }
      } else {
        node = await nodeHash(node, sibling);
      }
      here >>= 1n;
      last >>= 1n;
    }
    if (last !== 0n) throw new Wrong("inclusion", "路径过短", "the path is too short");
    return node;
  }

  // Keys, notes and proofs (C2SP)

  async function parseKey(text) {
    const invalid = new Wrong("key", "公钥格式不对", "the key is no verifier key: <name>+<id>+<base64>");
    const [, name, id, encoded] = /^([^+\s]+)\+([0-9a-f]{8})\+(\S+)$/.exec(text) ?? [];
    if (!name) throw invalid;
    let key;
    try { key = fromBase64(encoded); } catch { throw invalid; }
    const digest = await sha256(encoder.encode(`${name}\n`), key);
    if (key.length !== 33 || ![1, 4].includes(key[0]) || hex(digest.subarray(0, 4)) !== id) throw invalid;
    return { name, id, algorithm: key[0], key: key.subarray(1) };
  }

  function parseNote(text) {
    const end = text.lastIndexOf("\n\n");
    if (end < 0 || !text.endsWith("\n") || /[\u0000-\u0009\u000b-\u001f]/.test(text)) throw unreadable("note");
    const lines = text.slice(end + 2, -1).split("\n");
    if (lines.length > 64) throw unreadable("note");
    const signatures = lines.map((line) => {
      const [, name, encoded] = /^\u2014 ([^ +]+) ([^ ]+)$/.exec(line) ?? [];
      if (!name) throw unreadable("note");
      const data = fromBase64(encoded);
      return { name, id: hex(data.subarray(0, 4)), signature: data.subarray(4) };
    });
    return { text: text.slice(0, end + 1), signatures };
  }

  /** How often a key has signed the note, and when it says so. A signature of a known key that fails refuses the note. */
  async function signedBy(note, key) {
    const found = [];
    for (const one of note.signatures.filter(({ name, id }) => name === key.name && id === key.id)) {
      let signature = one.signature, message = note.text, time = null;
      if (key.algorithm === 4 && signature.length === 72) {
        time = new DataView(signature.buffer, signature.byteOffset).getBigUint64(0);
        message = `cosignature/v1\ntime ${time}\n${note.text}`;
        signature = signature.subarray(8);
      }
      if (!await holds(key.key, signature, encoder.encode(message)))
        throw new Wrong("checkpoint", `检查点上 ${key.name} 的签名不成立`, `the checkpoint's signature of ${key.name} does not hold`);
      found.push({ name: key.name, time });
    }
    return found;
  }

  function parseCheckpoint(text) {
    const [origin, size, hash, rest, ...more] = text.split("\n");
    if (!origin || rest !== "" || more.length) throw unreadable("checkpoint");
    const made = { origin, size: decimal(size), root: fromBase64(hash) };
    if (made.root.length !== 32) throw unreadable("checkpoint");
    return made;
  }

  function parseProof(text) {
    const end = text.indexOf("\n\n");
    const [header, extra, index, ...path] = text.slice(0, Math.max(end, 0)).split("\n");
    if (header !== "c2sp.org/tlog-proof@v1" || !extra?.startsWith("extra ") || !index?.startsWith("index "))
      throw unreadable("tlog-proof");
    const hashes = path.map(fromBase64);
    if (hashes.length > 63 || hashes.some((one) => one.length !== 32)) throw unreadable("tlog-proof");
    return { entry: fromBase64(extra.slice(6)), index: decimal(index.slice(6)), path: hashes, note: text.slice(end + 2) };
  }

  // Avro, by the schemas that stand in the evidence

  class Reader {
    constructor(bytes) { this.bytes = bytes; this.at = 0; }
    take(count) {
      if (count > this.bytes.length - this.at) throw unreadable("Avro");
      return this.bytes.subarray(this.at, this.at += count);
    }
    long() {
      let number = 0n;
      for (let shift = 0n; ; shift += 7n) {
        const [byte] = this.take(1);
        number |= BigInt(byte & 127) << shift;
        if (byte < 128) {
          // One encoding a value: no zero at the end, no more than 64 bits.
          if ((byte === 0 && shift > 0n) || number >> 64n) throw unreadable("Avro");
          return (number >> 1n) ^ -(number & 1n);
        }
        if (shift > 56n) throw unreadable("Avro");
      }
    }
    count() {
      const number = this.long();
      if (number < 0n || number > 65536n) throw unreadable("Avro");
      return Number(number);
    }
  }

  class Schema {
    constructor(document) { this.document = document; this.named = new Map(); this.#collect(document); }
    #collect(node) {
      if (Array.isArray(node)) node.forEach((one) => this.#collect(one));
      else if (node !== null && typeof node === "object") {
        if (["record", "fixed", "enum"].includes(node.type)) this.named.set(node.name, node);
        for (const key of ["type", "items", "fields"]) if (typeof node[key] !== "string") this.#collect(node[key]);
      }
    }
    decode(bytes) {
      const reader = new Reader(bytes);
      const value = this.#read(this.document, reader);
      if (reader.at !== bytes.length) throw unreadable("Avro");
      return value;
    }
    #read(type, reader) {
      if (Array.isArray(type)) {
        const number = reader.count();
        if (number >= type.length) throw unreadable("Avro");
        const value = this.#read(type[number], reader);
        return type[number].type === "record" ? { kind: type[number].name, fields: value } : value;
      }
      switch (type.type ?? type) {
        case "null": return null;
        case "boolean": {
          const [byte] = reader.take(1);
          if (byte > 1) throw unreadable("Avro");
          return byte === 1;
        }
        case "int": case "long": {
          const number = reader.long();
          if ((type.type ?? type) === "int" && BigInt.asIntN(32, number) !== number) throw unreadable("Avro");
          return type.logicalType === "timestamp-micros" ? { micros: number } : number;
        }
        case "bytes": return reader.take(reader.count());
        case "string":
          try { return decoder.decode(reader.take(reader.count())); } catch { throw unreadable("Avro"); }
        case "fixed": return reader.take(type.size);
        case "enum": {
          const number = reader.count();
          if (number >= type.symbols.length) throw unreadable("Avro");
          return type.symbols[number];
        }
        case "array": {
          const count = reader.count();
          const items = Array.from({ length: count }, () => this.#read(type.items, reader));
          if (count && reader.count() !== 0) throw unreadable("Avro");
          return items;
        }
        case "record":
          return Object.fromEntries(type.fields.map((field) => [field.name, this.#read(field.type, reader)]));
      }
      // A name, or another type in brackets.
      const inner = typeof type === "string" ? this.named.get(type.split(".").pop()) : type.type;
      if (inner === undefined) throw unreadable("Avro");
      return this.#read(inner, reader);
    }
  }

  const logged = new Schema(evidence.schemas.LoggedEntry);
  const audit = new Schema(evidence.schemas.AuditEntry);

  // Certificates (X.509, DER)

  function element(bytes, start = 0) {
    let length = bytes[start + 1], begin = start + 2;
    if (length > 127) {
      const count = length & 127;
      if (count < 1 || count > 3) throw unreadable("DER");
      length = bytes.subarray(begin, begin + count).reduce((sum, byte) => sum * 256 + byte, 0);
      begin += count;
    }
    const end = begin + length;
    if (!(end <= bytes.length)) throw unreadable("DER");
    return { tag: bytes[start], whole: bytes.subarray(start, end), content: bytes.subarray(begin, end), end };
  }
  function elements(bytes) {
    const found = [];
    for (let start = 0; start < bytes.length; start = found.at(-1).end) found.push(element(bytes, start));
    return found;
  }
  function oid(bytes) {
    const numbers = [];
    let number = 0n;
    for (const byte of bytes) {
      number = (number << 7n) | BigInt(byte & 127);
      if (byte < 128) { numbers.push(number); number = 0n; }
    }
    const [first] = numbers;
    const top = first < 80n ? first / 40n : 2n;
    return [top, first - top * 40n, ...numbers.slice(1)].join(".");
  }
  function moment({ tag, content }) {
    const text = decoder.decode(content);
    const [, year, month, day, hour, minute, second] = /^(\d{2}|\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text) ?? [];
    if (!year || (tag === 0x17) !== (year.length === 2)) throw unreadable("DER");
    const full = tag === 0x17 ? (year < "50" ? `20${year}` : `19${year}`) : year;
    return BigInt(Date.UTC(full, month - 1, day, hour, minute, second)) * 1000n;
  }
  function subjectOf(name) {
    const found = {};
    for (const set of elements(name.content)) {
      for (const pair of elements(set.content)) {
        const [key, value] = elements(pair.content);
        found[oid(key.content)] = decoder.decode(value.content);
      }
    }
    return { name: found["2.5.4.3"] ?? "", uscc: found["2.5.4.5"] ?? "" };
  }
  function parseCertificate(der) {
    const outer = element(der);
    if (outer.end !== der.length) throw unreadable("DER");
    const [body, , signature] = elements(outer.content);
    const [, , , issuer, validity, subject, keyInfo, ...rest] = elements(body.content);
    const [algorithm, key] = elements(keyInfo.content);
    if (oid(elements(algorithm.content)[0].content) !== "1.3.101.112" || key.content[0] !== 0) throw unreadable("DER");
    const [from, until] = elements(validity.content).map(moment);
    let usages = [];
    for (const extension of rest.filter(({ tag }) => tag === 0xa3).flatMap(({ content }) => elements(elements(content)[0].content))) {
      const parts = elements(extension.content);
      if (oid(parts[0].content) === "2.5.29.37")
        usages = elements(element(parts.at(-1).content).content).map(({ content }) => oid(content));
    }
    return {
      body: body.whole, issuer: issuer.whole, subject: subject.whole, from, until, usages, key: key.content.subarray(1),
      signature: signature.content.subarray(1), ...subjectOf(subject),
    };
  }

  async function readCertificates() {
    const der = fromBase64(evidence.authority);
    const authority = parseCertificate(der);
    const known = new Map();
    for (const one of evidence.certificates.map(fromBase64)) {
      const id = hex(await sha256(one));
      try {
        const parsed = parseCertificate(one);
        const role = parsed.usages.length === 1 ? evidence.roles[parsed.usages[0]] : undefined;
        const issued = equal(parsed.issuer, authority.subject) && await holds(authority.key, parsed.signature, parsed.body);
        if (role && issued) known.set(id, { ...parsed, role });
      } catch (error) {
        if (!(error instanceof Wrong)) console.error(error);  // a certificate that nobody can read vouches for nobody
      }
    }
    return { fingerprint: hex(await sha256(der)), known };
  }

  // An entry's checks

  function decodeEntry(bytes) {
    const { entry, proof } = logged.decode(bytes);
    const fields = audit.decode(entry);
    if (fields.format !== 1n) throw unreadable("format");
    return { signed: entry, proof, time: fields.time, group: fields.group, kind: fields.body.kind, body: fields.body.fields };
  }

  async function checkInclusion(row) {
    const found = await rootFromPath(row.leaf, row.proof.index, row.checkpoint.size, row.proof.path);
    if (!equal(found, row.checkpoint.root))
      throw new Wrong("inclusion", "条目不在日志的这一位置上", "the log has not this entry at this index");
  }

  async function checkSignature(row, certificates) {
    const { signed, proof, time, group } = row.entry;
    const certificate = certificates.known.get(hex(proof.signer));
    if (!certificate)
      throw new Wrong("signature", "签名方的证书缺失或不是总线签发", "the signer's certificate is missing or not the bus CA's");
    const { origin } = row.checkpoint;
    const cut = origin.lastIndexOf("/log/");
    if (cut < 0) throw new Wrong("signature", "日志名称不含总线名称", "the log's origin does not name a bus");
    const hash = await rootFromPath(await leafHash(signed), BigInt(proof.index), BigInt(proof.size), proof.path);
    const where = `${origin.slice(0, cut)}/entries/${hex(proof.signer)}/${hex(group)}`;
    const text = `${where}\n${proof.size}\n${toBase64(hash)}\n`;
    if (proof.index < 0n || proof.size > 65536n || !await holds(certificate.key, proof.signature, encoder.encode(text)))
      throw new Wrong("signature", "条目的签名不成立", "the entry's signature does not hold");
    if (time.micros < certificate.from || time.micros > certificate.until)
      throw new Wrong("signature", "证书在该时间无效", "the certificate was not valid at that time");
    row.signer = certificate;
  }

  /** Reads every proof and checks it with this key: rows, each with what is wrong in it. */
  async function checkAll(keyText, progress) {
    const wrong = [], notes = new Map();
    let key = null, certificates = { fingerprint: "", known: new Map() };
    try { key = await parseKey(keyText); } catch (error) { wrong.push(asWrong(error)); }
    try { certificates = await readCertificates(); } catch (error) { wrong.push(asWrong(error)); }
    const witnesses = [];
    for (const text of evidence.witnesses) {
      try { witnesses.push(await parseKey(text)); } catch (error) { wrong.push(asWrong(error)); }
    }

    async function readNote(text) {
      if (key === null) throw new Wrong("checkpoint", "没有可用的公钥", "there is no usable key");
      const note = parseNote(text);
      const checkpoint = parseCheckpoint(note.text);
      if (key.algorithm !== 1 || checkpoint.origin !== key.name || !(await signedBy(note, key)).length)
        throw new Wrong("checkpoint", "检查点不是由此公钥签名", "the checkpoint is not signed by this key");
      checkpoint.witnesses = [];
      for (const witness of witnesses) checkpoint.witnesses.push(...await signedBy(note, witness));
      return checkpoint;
    }

    const rows = [];
    for (const text of evidence.proofs) {
      if (rows.length % 200 === 0) progress(rows.length);
      const row = { wrong: [], proof: null, entry: null, checkpoint: null, leaf: null, signer: null };
      const attempt = async (work) => {
        try { await work(); return true; } catch (error) { row.wrong.push(asWrong(error)); return false; }
      };
      rows.push(row);
      if (!await attempt(async () => { row.proof = parseProof(text); row.leaf = await leafHash(row.proof.entry); })) continue;
      await attempt(() => { row.entry = decodeEntry(row.proof.entry); });
      const { note } = row.proof;
      if (!notes.has(note)) notes.set(note, readNote(note));
      const sound = await attempt(async () => { row.checkpoint = await notes.get(note); });
      if (sound) await attempt(() => checkInclusion(row));
      if (sound && row.entry) await attempt(() => checkSignature(row, certificates));
    }

    // A case's entries are those that name it, and those that take one of them back.
    const named = new Set(rows.filter((row) => row.entry?.body.case === evidence.case).map((row) => hex(row.leaf)));
    for (const { entry, proof } of rows.filter((one) => one.entry?.kind === "Voided"))
      for (const row of rows.filter(({ leaf }) => leaf && equal(leaf, entry.body.entry))) row.takenBack = proof.index;
    const places = new Set();
    for (const row of rows) {
      if (row.entry && !named.has(hex(row.leaf)) && !(row.entry.kind === "Voided" && named.has(hex(row.entry.body.entry))))
        row.wrong.push(new Wrong("case", "条目不属于本案", "the entry does not carry this case number"));
      const place = row.proof && String(row.proof.index);
      if (place !== null && places.has(place)) row.wrong.push(new Wrong("twice", "同一条目列了两次", "the entry is listed twice"));
      places.add(place);
    }
    if (notes.size > 1)
      wrong.push(new Wrong("checkpoints", "各条目的检查点不一致", "the proofs do not share one checkpoint"));
    if (!rows.length) wrong.push(new Wrong("empty", "没有条目", "there are no entries"));
    return { rows, wrong, certificates };
  }

  function asWrong(error) {
    if (error instanceof Wrong) return error;
    console.error(error);
    return unreadable("data");
  }

  // Showing

  /** Text in which nothing is invisible and nothing turns the direction of what follows. */
  const visible = (text) => String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu,
    (one) => `\\u{${one.codePointAt(0).toString(16)}}`);

  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((one) => one !== null).map((one) => (one instanceof Node ? one : visible(one))));
    return made;
  }
  const english = (text) => make("span", { lang: "en" }, text);
  const both = (tag, zh, en, attributes = {}) => make(tag, attributes, zh, " ", english(en));

  function named(value) {
    const name = Object.hasOwn(evidence.names, value) ? evidence.names[value] : null;
    return make("span", {}, value, name === null ? null : make("span", { class: "name" }, ` (${name})`));
  }
  const list = (items) => make("ul", {}, ...items.map((one) => make("li", {}, one)));

  function beijing({ micros }) {
    const text = new Date(Number(micros / 1000n) + 8 * 3600 * 1000);
    return Number.isNaN(text.getTime()) ? String(micros) : text.toISOString().slice(0, 19).replace("T", " ");
  }
  function utc({ micros }) {
    const text = new Date(Number(micros / 1000n));
    const rest = String(((micros % 1000000n) + 1000000n) % 1000000n).padStart(6, "0");
    return Number.isNaN(text.getTime()) ? String(micros) : `${text.toISOString().slice(0, 19)}.${rest}Z`;
  }

  const HEADINGS = {
    agent: "代理", author: "作者", basis: "依据", by: "何人", case: "案号", checkpoint: "检查点", citation: "法条", code: "代码", conflict: "冲突",
    consumer: "使用部门", digest: "请求摘要", entry: "所指条目", first: "其一", ground: "依据", hash: "散列", id: "编号", item: "事项", kind: "种类",
    licence: "证照", mode: "方式", onward_to: "转提供", name: "名称", operator: "经办人", place: "位置", provider: "提供部门", purpose: "用途", reader: "查阅方", reason: "理由",
    recipient: "接收方", record: "记录", region: "区划", returned: "返回条数", revision: "版本", rule: "规则", second: "其二", sections: "数据段",
    addressee: "被告知部门", admitted: "收录条目", count: "次数", derived: "衍生证照", entries: "所据条目", issuer: "发证部门", occurred_at: "发生时间",
    opened: "曾开启的版本", operation: "事由", parent: "所依记录", set_size: "批量条数", signature: "签名", signer: "签名证书", stands: "成立者", state: "状态", subjects: "主体（化名）", trace: "追踪号", used_up: "已用尽", what: "查阅内容",
  };
  const KINDS = {
    Decision: "开启决定", Admitted: "收录", Conflict: "冲突", Ruling: "裁定", ErasureStarted: "开始删除", ErasureComplete: "删除完成", Voided: "撤回决定",
    Revision: "版本", Reading: "查阅", Impact: "影响告知",
  };

  function shown(value) {
    if (value === null) return make("span", {}, "—");
    if (value instanceof Uint8Array) return make("span", { class: "mono" }, hex(value));
    if (Array.isArray(value)) return value.length ? list(value.map(shown)) : make("span", {}, "—");
    if (typeof value === "object") return "micros" in value ? make("span", {}, utc(value)) : fields(value);
    return typeof value === "string" ? named(value) : make("span", {}, value);
  }
  function fields(values) {
    const made = make("dl", { class: "facts" });
    for (const [name, value] of Object.entries(values)) {
      const heading = Object.hasOwn(HEADINGS, name) ? HEADINGS[name] : "";
      made.append(make("dt", {}, heading, " ", english(name)), make("dd", {}, shown(value)));
    }
    return made;
  }

  const CHECKS = [
    ["form", "格式", "form"], ["checkpoint", "检查点", "checkpoint"], ["inclusion", "在日志内", "in the log"],
    ["signature", "签名", "signed"], ["case", "案号", "case"], ["twice", "不重复", "once"],
  ];
  /** Of a row that failed, each check; one that was not reached, because an earlier one failed, has no mark. */
  function marks(row) {
    if (!row.wrong.length) return both("span", "✔ 通过", "good", { class: "good-mark" });
    const failed = new Map(row.wrong.map((one) => [one.check, one]));
    const reached = { form: true, checkpoint: row.proof, inclusion: row.checkpoint, signature: row.checkpoint && row.entry,
      case: row.entry, twice: row.proof };
    return list(CHECKS.filter(([check]) => failed.has(check) || reached[check]).map(([check, zh, en]) => {
      const wrong = failed.get(check);
      return wrong
        ? both("span", `✘ ${zh}：${wrong.zh}`, `${en}: ${wrong.en}`, { class: "bad-mark" })
        : both("span", `✔ ${zh}`, en, { class: "good-mark" });
    }));
  }

  function showRow(row, number) {
    const good = row.wrong.length === 0;
    const index = row.proof ? String(row.proof.index) : "?";
    const body = row.entry?.body ?? {};
    const cells = [body.consumer ?? body.reader ?? body.author ?? body.by, [body.provider, body.item], [body.purpose, body.ground],
      [body.operator, body.agent]].map((value) => list([value].flat().filter((one) => typeof one === "string" && one).map(named)));
    const outcome = (body.sections ?? []).map((one) => `${one.name}: ${one.code}`).concat(body.code ?? []);
    if (row.takenBack !== undefined) outcome.push(both("strong", `已撤回，见 ${row.takenBack}`, `taken back by ${row.takenBack}`));
    const kind = row.entry?.kind ?? "?";
    const line = make("tr", { id: `row-${number}`, "data-index": index, "data-status": good ? "good" : "bad",
      "data-failed": row.wrong.map((one) => one.check).join(" ") },
    make("th", { scope: "row" }, index),
    make("td", {}, row.entry ? make("time", { datetime: utc(row.entry.time) }, beijing(row.entry.time)) : "?"),
    make("td", {}, Object.hasOwn(KINDS, kind) ? KINDS[kind] : "", " ", english(kind)),
    ...cells.map((one) => make("td", {}, one)),
    make("td", {}, list(outcome)),
    make("td", {}, marks(row)));
    if (!row.entry) return [line];
    const all = { ...body, time: row.entry.time, group: row.entry.group, entry_hash: row.leaf, signed_by: row.entry.proof.signer };
    if (row.signer) all.signer_name = `${row.signer.name} ${row.signer.uscc} (${row.signer.role})`;
    const more = make("details", {}, both("summary", "全部字段", "all fields"), fields(all));
    return [line, make("tr", { class: "more" }, make("td", { colspan: "9" }, more))];
  }

  function verdict(result, mark, zh, en, reasons = []) {
    root.dataset.result = result;
    at("result").className = `result ${result === "good" || result === "checking" ? result : "bad"}`;
    at("verdict").replaceChildren(`${mark} ${zh} `, english(en));
    at("reasons").replaceChildren(...reasons);
  }

  function show({ rows, wrong, certificates }, trusted) {
    at("authority").textContent = certificates.fingerprint || "?";
    at("rows").replaceChildren(...rows.flatMap(showRow));
    const checkpoint = rows.find((row) => row.checkpoint)?.checkpoint;
    at("checkpoint").replaceChildren();
    if (checkpoint) {
      const facts = [["日志", "log", checkpoint.origin], ["条目数", "size", checkpoint.size], ["根散列", "root", toBase64(checkpoint.root)],
        ...checkpoint.witnesses.map(({ name, time }) => ["见证方", "witness", `${name} ${utc({ micros: (time ?? 0n) * 1000000n })}`])];
      for (const [zh, en, value] of facts) at("checkpoint").append(both("dt", zh, en), make("dd", {}, value));
    }
    const bad = rows.map((row, number) => [row, number]).filter(([row]) => row.wrong.length);
    const reasons = wrong.map((one) => both("p", `✘ ${one.zh}`, one.en));
    if (bad.length) {
      const links = bad.slice(0, 20).flatMap(([row, number]) => [" ", make("a", { href: `#row-${number}` }, row.proof ? row.proof.index : "?")]);
      reasons.push(make("p", {}, `✘ ${bad.length} / ${rows.length} 条不通过，序号`, " ", english("entries failed, index"), ...links));
    }
    if (trusted !== "" && trusted !== evidence.vkey)
      reasons.push(both("p", "✘ 您的公钥与档案自带的公钥不同", "your key is not the one that came with the evidence"));
    if (reasons.length) verdict("bad", "✘", "核验不通过", "Not verified", reasons);
    else if (trusted === "") {
      verdict("good", "✔", "核验通过——前提是下方公钥与根证书指纹确由运营方公布", "Verified, if the key and the CA fingerprint below are the operator's");
    } else verdict("good", "✔", "核验通过（用您的公钥）", "Verified with your key");
  }

  let run = 0;
  async function start() {
    const mine = ++run;
    verdict("checking", "…", "正在核验", "Checking");
    if (!await capable()) {
      verdict("unable", "✘", "未核验：此浏览器缺少 WebCrypto 或 Ed25519", "Not verified: this browser lacks WebCrypto or Ed25519", [
        both("p", "请换用较新的浏览器，或按 README.txt 用其他工具核验。", "Use a newer browser, or other tools: see README.txt.")]);
      return;
    }
    const trusted = at("trusted").value.trim();
    const found = await checkAll(trusted || evidence.vkey, (count) => {
      const done = `${count} / ${evidence.proofs.length}`;
      if (mine === run) verdict("checking", "…", `正在核验 ${done}`, "Checking");
    });
    if (mine === run) show(found, trusted);
  }

  at("case").append(visible(evidence.case));
  at("made").append(visible(evidence.made_at));
  at("count").append(visible(evidence.proofs.length));
  at("vkey").append(visible(evidence.vkey));
  at("trust").addEventListener("submit", (event) => { event.preventDefault(); void launch(); });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));

  /** A defect of this page is never a good result. */
  async function launch() {
    try { await start(); } catch (error) {
      console.error(error);
      verdict("bad", "✘", "核验不通过：数据无法读取", "Not verified: the data cannot be read");
    }
  }
  void launch();
})();
