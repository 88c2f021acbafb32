//! GGUF files as users and other programs see them: files written by others are read, files
//! written here are what others write, and broken files end in one line that says what is wrong.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use gemma3n::gguf::{
    Error, Fault, Gguf, Layout, Metadata, OwnedArray, OwnedValue, TensorType, Value, Writer,
    same_file,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Written by the `gguf` Python package 0.19.0 with `GGUFWriter(path, "gemma3n")`, the values of
/// [`python_layout`] and three tensors: arange(6) as F32 [2, 3], arange(5) as F16 and
/// linspace(-1, 1, 64) quantized to Q8_0 [2, 32].
const PYTHON_FILE: &str = "\
    474755460300000003000000000000000a00000000000000140000000000000067656e6572616c2e61726368\
    697465637475726508000000070000000000000067656d6d61336e130000000000000067656d6d61336e2e62\
    6c6f636b5f636f756e74040000001e000000220000000000000067656d6d61336e2e617474656e74696f6e2e\
    7368617265645f6b765f6c61796572730600000000002041280000000000000067656d6d61336e2e61747465\
    6e74696f6e2e736c6964696e675f77696e646f775f7061747465726e09000000070000000300000000000000\
    0101001b0000000000000067656d6d61336e2e666565645f666f72776172645f6c656e677468090000000500\
    000002000000000000000020000000400000210000000000000067656d6d61336e2e61637469766174696f6e\
    5f73706172736974795f7363616c65090000000600000002000000000000000000c03f000080ff1500000000\
    000000746f6b656e697a65722e67676d6c2e746f6b656e730900000008000000030000000000000005000000\
    000000003c7061643e0400000000000000e296816100000000000000000800000000000000746573742e6936\
    340b000000fbffffffffffffff0700000000000000746573742e753800000000c80900000000000000746573\
    742e626f6f6c07000000000800000000000000612e7765696768740200000003000000000000000200000000\
    0000000000000000000000000000000800000000000000622e77656967687401000000050000000000000001\
    00000020000000000000000800000000000000712e7765696768740200000020000000000000000200000000\
    000000080000004000000000000000000000000000000000000000000000803f000000400000404000008040\
    0000a04000000000000000000000003c00400042004400000000000000000000000000000000000000000000\
    08208185898d9195999da1a5a9adb1b5b9bdc2c6caced2d6dadee2e6eaeef2f6fafe082002060a0e12161a1e\
    22262a2e32363a3e43474b4f53575b5f63676b6f73777b7f0000000000000000000000000000000000000000\
    0000000000000000\
";

/// SHA-256 (Python's hashlib) of that file's bytes 0..631 (its header) and of the bytes of its
/// three tensors, all shorter than 4 KiB.
const PYTHON_FINGERPRINT: &str = "76cca3d9ed8aa26ee33beaf42bd283881eb04d236a07fd56a2ba397fd8dd3836";

fn python_file() -> Vec<u8> {
    let hex = PYTHON_FILE.as_bytes();
    let digit = |c: u8| (c as char).to_digit(16).expect("hex") as u8;
    hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The plan of the same file.
fn python_layout() -> Layout {
    let mut layout = Layout::new();
    layout.set("general.architecture", "gemma3n");
    layout.set("gemma3n.block_count", 30u32);
    layout.set("gemma3n.attention.shared_kv_layers", 10f32);
    layout.set("gemma3n.attention.sliding_window_pattern", vec![true, true, false]);
    layout.set("gemma3n.feed_forward_length", vec![8192i32, 16384]);
    layout.set("gemma3n.activation_sparsity_scale", vec![1.5, f32::NEG_INFINITY]);
    layout.set(
        "tokenizer.ggml.tokens",
        vec!["<pad>".to_string(), "\u{2581}a".to_string(), String::new()],
    );
    layout.set("test.i64", -5i64);
    layout.set("test.u8", 200u8);
    layout.set("test.bool", false);
    layout.add_tensor("a.weight", [3, 2, 1, 1], 2, TensorType::F32);
    layout.add_tensor("b.weight", [5, 1, 1, 1], 1, TensorType::F16);
    layout.add_tensor("q.weight", [32, 2, 1, 1], 2, TensorType::Q8_0);
    layout
}

fn open_bytes(bytes: &[u8]) -> Result<Gguf, Error> {
    Gguf::from_static("model.gguf", Box::leak(bytes.to_vec().into_boxed_slice()))
}

/// The message for a file with these bytes; it must not open.
fn message(bytes: &[u8]) -> String {
    open_bytes(bytes).expect_err("must be refused").to_string()
}

fn write(path: &Path, layout: &Layout, data: &[Vec<u8>]) {
    let mut writer = Writer::create(path, layout, true).expect("create");
    for (plan, data) in layout.tensors.iter().zip(data) {
        // In uneven pieces.
        for piece in data.chunks(7) {
            writer.append(&plan.name, piece).expect("append");
        }
    }
    writer.finish().expect("finish");
}

/// Reads everything that can be reached in an open file.
fn touch(gguf: &Gguf) -> usize {
    let mut touched = 0;
    for (key, value) in gguf.metadata().iter() {
        touched += key.len();
        touched += match value {
            Value::Array(array) => array.iter().count() + array.get(array.len()).iter().count(),
            _ => 1,
        };
    }
    for tensor in gguf.tensors() {
        let sum: u64 = gguf.data(tensor).iter().map(|&byte| u64::from(byte)).sum();
        touched += (sum > 0) as usize + tensor.n_elements().min(1) as usize;
        gguf.advise_will_need(tensor, &[0..1, 5..u64::MAX]);
    }
    touched + gguf.fingerprint().len()
}

#[test]
fn reads_a_file_of_the_python_package() {
    let gguf = open_bytes(&python_file()).expect("open");
    let metadata = gguf.metadata();
    assert_eq!(metadata.len(), 10);
    assert_eq!(metadata.str("general.architecture").unwrap(), Some("gemma3n"));
    assert_eq!(metadata.u32("gemma3n.block_count").unwrap(), Some(30));
    assert_eq!(metadata.u32("gemma3n.attention.shared_kv_layers").unwrap(), Some(10));
    assert_eq!(
        metadata.bool_array("gemma3n.attention.sliding_window_pattern").unwrap(),
        Some(vec![true, true, false])
    );
    let ffn = metadata.u32_array("gemma3n.feed_forward_length").unwrap();
    assert_eq!(ffn, Some(vec![8192, 16384]));
    let sparsity = metadata.f32_array("gemma3n.activation_sparsity_scale").unwrap();
    assert_eq!(sparsity, Some(vec![1.5, f32::NEG_INFINITY]));
    let tokens = metadata.string_array("tokenizer.ggml.tokens").unwrap().expect("tokens");
    let tokens: Vec<&[u8]> = tokens.strings().collect();
    assert_eq!(tokens, ["<pad>".as_bytes(), "\u{2581}a".as_bytes(), b""]);
    assert_eq!(metadata.f32("test.i64").unwrap(), Some(-5.0));
    assert!(matches!(metadata.get("test.u8"), Some(Value::U8(200))));
    assert_eq!(metadata.bool("test.bool").unwrap(), Some(false));
    assert_eq!(metadata.u32("absent").unwrap(), None);

    let names: Vec<&str> = gguf.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a.weight", "b.weight", "q.weight"]);
    let a = gguf.tensor("a.weight").expect("a.weight");
    assert_eq!((a.ne, a.n_dims, a.ty, a.nbytes), ([3, 2, 1, 1], 2, TensorType::F32, 24));
    let values: Vec<f32> =
        gguf.data(a).chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let q = gguf.tensor("q.weight").expect("q.weight");
    assert_eq!((q.ty, q.nbytes, q.offset()), (TensorType::Q8_0, 68, 704));
    assert_eq!(gguf.fingerprint(), PYTHON_FINGERPRINT);
}

#[test]
fn writes_the_bytes_that_the_python_package_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.gguf");
    let original = open_bytes(&python_file()).unwrap();
    let data: Vec<Vec<u8>> =
        original.tensors().iter().map(|tensor| original.data(tensor).to_vec()).collect();
    write(&path, &python_layout(), &data);
    assert!(fs::read(&path).unwrap() == python_file());

    let mut copy = Layout::new();
    copy.copy_metadata(original.metadata());
    copy.tensors = python_layout().tensors;
    assert_eq!(copy, python_layout());
}

#[test]
fn every_kind_of_value_survives_a_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("values.gguf");
    let mut layout = Layout::new();
    let values = [
        OwnedValue::U8(u8::MAX),
        OwnedValue::I8(i8::MIN),
        OwnedValue::U16(u16::MAX),
        OwnedValue::I16(i16::MIN),
        OwnedValue::U32(u32::MAX),
        OwnedValue::I32(i32::MIN),
        OwnedValue::F32(f32::MIN_POSITIVE),
        OwnedValue::Bool(true),
        OwnedValue::String(vec![0, 255, 10]),
        OwnedValue::U64(u64::MAX),
        OwnedValue::I64(i64::MIN),
        OwnedValue::F64(1e300),
        OwnedArray::U8(vec![1, 255]).into(),
        OwnedArray::I8(vec![-1, 1]).into(),
        OwnedArray::U16(vec![1, 65535]).into(),
        OwnedArray::I16(vec![-32768]).into(),
        OwnedArray::U32(vec![u32::MAX, 0]).into(),
        OwnedArray::I32(vec![i32::MIN]).into(),
        OwnedArray::F32(vec![f32::INFINITY, -0.0]).into(),
        OwnedArray::Bool(vec![true, false]).into(),
        OwnedArray::String(vec![vec![255], vec![], b"x".to_vec()]).into(),
        OwnedArray::U64(vec![u64::MAX]).into(),
        OwnedArray::I64(vec![i64::MIN]).into(),
        OwnedArray::F64(vec![f64::MIN_POSITIVE]).into(),
        OwnedArray::U32(Vec::new()).into(),
    ];
    for (i, value) in values.iter().enumerate() {
        layout.set(&format!("key.{i}"), value.clone());
    }
    write(&path, &layout, &[]);
    for gguf in [Gguf::open(&path).unwrap(), Gguf::read(&path).unwrap()] {
        let back: Vec<OwnedValue> = gguf.metadata().iter().map(|(_, v)| v.into()).collect();
        assert_eq!(back, values);
    }
}

#[test]
fn mapped_and_read_files_are_the_same_and_aligned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, python_file()).unwrap();
    let (mapped, read) = (Gguf::open(&path).unwrap(), Gguf::read(&path).unwrap());
    assert_eq!(mapped.fingerprint(), read.fingerprint());
    assert_eq!((mapped.file_len(), mapped.n_parts(), mapped.path()), (800, 1, path.as_path()));
    for gguf in [mapped, read] {
        for tensor in gguf.tensors() {
            assert!(gguf.is_aligned(tensor, 32));
            gguf.advise_random(tensor);
        }
        let q = gguf.tensor("q.weight").unwrap();
        assert!(gguf.is_aligned(q, 64));
        touch(&gguf);
    }
}

#[test]
fn the_fingerprint_sees_both_ends_of_a_tensor() {
    let mut layout = Layout::new();
    layout.add_tensor("t", [10_000, 1, 1, 1], 1, TensorType::I8);
    let start = layout.encode().unwrap().header.len();
    let mut bytes = layout.encode().unwrap().header;
    bytes.resize(start + 10_000, 7);
    let of = |bytes: &[u8]| open_bytes(bytes).unwrap().fingerprint();
    let plain = of(&bytes);
    for (at, seen) in [(0, true), (4095, true), (4096, false), (5903, false), (5904, true)] {
        bytes[start + at] ^= 1;
        assert_eq!(of(&bytes) != plain, seen, "byte {at}");
        bytes[start + at] ^= 1;
    }
}

#[test]
fn readers_are_liberal_with_numbers_and_name_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let mut layout = Layout::new();
    layout.set("half", 10.5f32);
    layout.set("negative", -1i32);
    layout.set("large", u64::MAX);
    layout.set("text", "ten");
    layout.set("bytes", OwnedValue::String(vec![255]));
    layout.set("one", 1u8);
    layout.set("floats", vec![0f32, 1.0]);
    layout.set("nan", vec![f32::NAN]);
    write(&path, &layout, &[]);
    let gguf = Gguf::open(&path).unwrap();
    let metadata = gguf.metadata();
    assert_eq!(metadata.bool("one").unwrap(), Some(true));
    assert_eq!(metadata.f32("one").unwrap(), Some(1.0));
    assert_eq!(metadata.u64("large").unwrap(), Some(u64::MAX));
    assert_eq!(metadata.i32_array("floats").unwrap(), Some(vec![0, 1]));
    assert_eq!(metadata.bool_array("floats").unwrap(), Some(vec![false, true]));
    let refused = |result: Result<(), Error>| {
        let text = result.unwrap_err().to_string();
        text.strip_prefix(&format!("{}: metadata key ", path.display())).unwrap().to_string()
    };
    let u32_of = |key| refused(metadata.u32(key).map(drop));
    let expected = "expected a number of 32 bits without sign, found";
    assert_eq!(u32_of("half"), format!("half: {expected} 10.5 (f32)"));
    assert_eq!(u32_of("negative"), format!("negative: {expected} -1 (i32)"));
    assert_eq!(u32_of("large"), format!("large: {expected} 18446744073709551615 (u64)"));
    assert_eq!(u32_of("text"), format!("text: {expected} string \"ten\""));
    assert_eq!(u32_of("floats"), format!("floats: {expected} an array of 2 f32"));
    assert!(refused(metadata.str("bytes").map(drop)).contains("UTF-8"));
    assert!(refused(metadata.str("one").map(drop)).starts_with("one: expected a string"));
    assert!(refused(metadata.i32_array("nan").map(drop)).contains("an array of integers"));
    assert!(refused(metadata.string_array("nan").map(drop)).contains("an array of strings"));
}

#[test]
fn truncated_anywhere_it_is_refused_with_a_reason() {
    let bytes = python_file();
    // The last tensor ends at 704 + 68; padding after it may be absent.
    for len in 0..704 + 68 {
        let text = message(&bytes[..len]);
        let known = ["empty file", "file ends inside ", "ends at byte ", "bytes follow"];
        assert!(known.iter().any(|reason| text.contains(reason)), "at {len}: {text}");
    }
    for len in 704 + 68..=bytes.len() {
        touch(&open_bytes(&bytes[..len]).expect("all tensors are there"));
    }
}

#[test]
fn ten_thousand_mutations_never_panic() {
    let original = python_file();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut opened = 0;
    for _ in 0..10_000 {
        let mut bytes = original.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..5) {
                0 => bytes[at] = random.random(),
                1 => bytes[at] ^= 1 << random.random_range(0..8),
                2 => bytes.truncate(at.max(1)),
                3 => drop(bytes.splice(at..at, [random.random::<u8>()])),
                _ => {
                    let end = (at + 8).min(bytes.len());
                    let wild = [u64::MAX, 1 << 60, 1 << 31, 0][random.random_range(0..4)];
                    bytes[at..end].copy_from_slice(&wild.to_le_bytes()[..end - at]);
                }
            }
        }
        if let Ok(gguf) = open_bytes(&bytes) {
            opened += 1;
            touch(&gguf);
        }
    }
    // Most of the file is names, values and data, where a change may be harmless.
    assert!((1000..9000).contains(&opened), "{opened} opened");
}

/// Builds files that no writer would.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn new(n_tensors: u64, n_pairs: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(n_tensors).u64(n_pairs)
    }

    fn u32(mut self, x: u32) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }

    fn u64(mut self, x: u64) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }

    fn string(self, text: &str) -> Self {
        let mut raw = self.u64(text.len() as u64);
        raw.0.extend(text.as_bytes());
        raw
    }

    fn tensor(self, name: &str, ne: &[u64], ty: u32, offset: u64) -> Self {
        let raw = self.string(name).u32(ne.len() as u32);
        ne.iter().fold(raw, |raw, &n| raw.u64(n)).u32(ty).u64(offset)
    }

    fn padded(mut self, data: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + data, 0);
        self
    }

    fn message(&self) -> String {
        message(&self.0)
    }
}

#[test]
fn what_is_no_gguf_file_is_named() {
    assert_eq!(message(b""), "model.gguf: empty file");
    let start = "model.gguf: not a GGUF file: starts with";
    assert_eq!(message(b"Hello, world"), format!("{start} \"Hello, world\""));
    assert_eq!(message(&[0, 1, 2, 255]), format!("{start} 00 01 02 ff"));
    assert!(message(b"version https://git-lfs.github.com/spec/v1\n").contains("Git LFS pointer"));
    assert!(message(b"PK\x03\x04aaaaaaaa").contains("zip"));
    assert!(message(b"\x88\x01\0\0\0\0\0\0{\"a\":1}").contains("safetensors"));
    assert_eq!(message(b"GG"), "model.gguf: file ends inside the magic (at byte 2 of 2)");
    let mut old = python_file();
    old[4] = 1;
    assert!(message(&old).contains("version 1 is no longer read"));
    old[4] = 4;
    assert!(message(&old).contains("version 4 is not supported"));
    old[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(message(&old).contains("big-endian"));
}

#[test]
fn counts_past_the_file_are_refused_before_memory_is_taken() {
    let huge = 1 << 60;
    assert_eq!(
        Raw::new(huge, 0).message(),
        "model.gguf: claims 1152921504606846976 tensors, but only 0 bytes follow"
    );
    assert!(Raw::new(0, huge).message().contains("1152921504606846976 metadata keys"));
    let array = |element, count| {
        Raw::new(0, 1).string("a").u32(9).u32(element).u64(count).padded(64).message()
    };
    assert!(array(4, huge).contains("claims 1152921504606846976 elements of a, but only"));
    assert!(array(8, huge).contains("elements of a"));
    assert!(array(8, u64::MAX).contains("elements of a"));
    // Five strings fit by their lengths alone; the bytes of the third are not there.
    let strings = Raw::new(0, 1).string("a").u32(9).u32(8).u64(5).u64(0).u64(0).u64(99).u64(0);
    assert!(strings.u64(0).message().contains("file ends inside the value of a[2]"));
    let key = Raw::new(0, 1).u64(huge).padded(64).message();
    assert!(key.contains("file ends inside metadata key 0"), "{key}");
    let text = Raw::new(0, 1).string("a").u32(8).u64(huge).padded(64).message();
    assert!(text.contains("file ends inside the value of a"), "{text}");
}

#[test]
fn bad_keys_are_named() {
    let two = Raw::new(0, 2).string("a").u32(4).u32(1).string("a").u32(4).u32(1);
    assert!(two.message().ends_with("metadata key a occurs twice"));
    assert!(Raw::new(0, 1).string("").u32(4).padded(64).message().contains("name is empty"));
    let unknown = Raw::new(0, 1).string("a").u32(13).padded(64).message();
    assert!(unknown.ends_with("metadata key a: unknown value type 13"));
    let nested = Raw::new(0, 1).string("a").u32(9).u32(9).u64(1).padded(64).message();
    assert!(nested.ends_with("metadata key a: arrays of arrays are not supported"));
    let aligned = |ty: u32, x: u32| {
        Raw::new(0, 1).string("general.alignment").u32(ty).u32(x).padded(64).message()
    };
    assert!(aligned(4, 0).ends_with("expected a power of two (u32), found 0"));
    assert!(aligned(4, 48).ends_with("found 48"));
    assert!(aligned(5, 32).ends_with("found a value of type i32"));
}

#[test]
fn bad_tensors_are_named() {
    let one = |ne: &[u64], ty| Raw::new(1, 0).tensor("t", ne, ty, 0).padded(1 << 10).message();
    assert!(one(&[4, 0], 0).ends_with("tensor t: shape 4 x 0 has an empty dimension"));
    assert!(one(&[1 << 40, 1 << 40], 0).contains("is too large"));
    assert!(one(&[1 << 62], 0).contains("is too large"));
    assert!(one(&[u64::MAX], 24).contains("is too large"));
    assert!(one(&[1; 5], 0).ends_with("tensor t: 5 dimensions; at most 4 are allowed"));
    assert!(one(&[4], 44).ends_with("tensor t: unknown type id 44"));
    assert!(one(&[4], 31).contains("type Q4_0_4_4 (id 31) was removed"));
    assert!(one(&[4], 5).contains("type Q4_3 (id 5) was removed"));
    assert!(
        one(&[48], 2).ends_with("rows of 48 elements are not a multiple of Q4_0's block of 32")
    );
    assert!(
        one(&[100_000], 0).contains("tensor t: ends at byte 400064, beyond the end of the file")
    );
    let long = "n".repeat(64);
    let named = |name: &str| Raw::new(1, 0).tensor(name, &[4], 0, 0).padded(64).message();
    assert!(named(&long).ends_with("tensor 0: its name has 64 bytes; 63 are allowed"));
    assert!(named("").ends_with("tensor 0: its name is empty"));
    let pair = |name: &str, offset| {
        Raw::new(2, 0).tensor("t", &[9], 0, 0).tensor(name, &[4], 0, offset).padded(256)
    };
    assert!(pair("t", 64).message().ends_with("tensor t occurs twice"));
    let overlap = pair("u", 32).message();
    assert!(overlap.contains("tensor u: overlaps the tensor before it (offset 32, expected 64)"));
    assert!(pair("u", 96).message().contains("tensor u: gap between it and the tensor before"));
    assert!(pair("u", u64::MAX).message().contains("tensor u: gap"));
    open_bytes(&pair("u", 64).0).expect("the pair itself is fine");
}

#[test]
fn another_alignment_is_read() {
    let raw = Raw::new(2, 1).string("general.alignment").u32(4).u32(8);
    let raw = raw.tensor("t", &[3], 24, 0).tensor("u", &[2], 24, 8);
    let mut bytes = raw.0;
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend([1, 2, 3, 0, 0, 0, 0, 0, 4, 5]);
    let gguf = open_bytes(&bytes).expect("open");
    assert_eq!(gguf.data(&gguf.tensors()[0]), [1, 2, 3]);
    assert_eq!(gguf.data(&gguf.tensors()[1]), [4, 5]);
}

#[test]
fn paths_that_are_no_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let fault = |path: &Path| Gguf::open(path).unwrap_err();
    assert!(matches!(*fault(folder.path()).fault, Fault::Directory));
    assert!(matches!(*fault(Path::new("/dev/null")).fault, Fault::NotRegular));
    let missing = folder.path().join("missing.gguf");
    let expected = format!("{}: No such file or directory", missing.display());
    assert_eq!(fault(&missing).to_string(), expected);
    let empty = folder.path().join("empty.gguf");
    fs::write(&empty, b"").unwrap();
    assert!(matches!(*fault(&empty).fault, Fault::Empty));
    assert!(matches!(*Gguf::read(&empty).unwrap_err().fault, Fault::Empty));
}

/// Writes part `no` of `count`, with one tensor named `tensor` (none if empty).
fn part(folder: &Path, no: u16, count: u16, tensor: &str, total: i32) -> PathBuf {
    let mut layout = Layout::new();
    if no == 0 {
        layout.set("general.architecture", "gemma3n");
    }
    layout.set("split.no", no);
    layout.set("split.count", count);
    layout.set("split.tensors.count", total);
    let mut data = Vec::new();
    if !tensor.is_empty() {
        layout.add_tensor(tensor, [4, 1, 1, 1], 1, TensorType::I8);
        data.push(vec![no as u8; 4]);
    }
    let path = folder.join(format!("m-{:05}-of-{count:05}.gguf", no + 1));
    write(&path, &layout, &data);
    path
}

#[test]
fn a_split_file_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = part(folder, 0, 3, "", 2);
    let second = part(folder, 1, 3, "a", 2);
    part(folder, 2, 3, "b", 2);
    for gguf in [Gguf::open(&first).unwrap(), Gguf::read(&first).unwrap()] {
        assert_eq!((gguf.n_parts(), gguf.tensors().len()), (3, 2));
        assert_eq!(gguf.metadata().str("general.architecture").unwrap(), Some("gemma3n"));
        assert_eq!(gguf.data(gguf.tensor("a").unwrap()), [1; 4]);
        assert_eq!(gguf.data(gguf.tensor("b").unwrap()), [2; 4]);
        let total: u64 = gguf.paths().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert_eq!(gguf.file_len(), total);
        touch(&gguf);
    }
    let refused = |path: &Path| Gguf::open(path).unwrap_err().to_string();
    assert_eq!(
        refused(&second),
        format!(
            "{}: part 2 of a split file; open the first part, {}",
            second.display(),
            first.display()
        )
    );
    part(folder, 2, 3, "a", 2);
    assert!(refused(&first).ends_with("m-00003-of-00003.gguf: tensor a occurs twice"));
    part(folder, 2, 3, "", 2);
    assert!(refused(&first).ends_with("split file: expected 2 tensors in all, found 1"));
    fs::copy(&second, folder.join("m-00003-of-00003.gguf")).unwrap();
    let text = refused(&first);
    assert!(text.ends_with("split file: expected split.no 2 (part 3), found 1"), "{text}");
    fs::remove_file(folder.join("m-00003-of-00003.gguf")).unwrap();
    assert!(refused(&first).ends_with("m-00003-of-00003.gguf: No such file or directory"));
    let renamed = folder.join("model.gguf");
    fs::rename(&first, &renamed).unwrap();
    assert!(refused(&renamed).contains("its name must end in -00001-of-00003.gguf"));
}

#[test]
fn an_unfinished_file_leaves_nothing_and_a_finished_one_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out.gguf");
    let layout = python_layout();
    let files = || fs::read_dir(folder.path()).unwrap().count();
    let text = |result: Result<(), Error>| result.unwrap_err().to_string();

    let mut writer = Writer::create(&target, &layout, false).unwrap();
    assert!(!target.exists() && files() == 1);
    let early = text(writer.append("b.weight", &[0; 10]));
    assert!(early.ends_with("tensor b.weight: cannot be written now: a.weight comes next"));
    writer.append("a.weight", &[0; 20]).unwrap();
    let early = text(writer.append("b.weight", &[0; 10]));
    assert!(early.ends_with("cannot start before a.weight is whole (20 of 24 bytes)"));
    let long = text(writer.append("a.weight", &[0; 5]));
    assert!(long.ends_with("tensor a.weight: expected 24 bytes, given at least 25"));
    writer.append("a.weight", &[0; 4]).unwrap();
    assert!(text(writer.finish()).ends_with("tensor b.weight: expected 10 bytes, given 0"));
    assert_eq!(files(), 0);

    let data = [vec![1; 24], vec![2; 10], vec![3; 68]];
    write(&target, &layout, &data);
    assert_eq!((files(), fs::metadata(&target).unwrap().len()), (1, 800));
    let exists = Writer::create(&target, &layout, false).unwrap_err();
    assert!(matches!(*exists.fault, Fault::Exists));
    write(&target, &layout, &[vec![4; 24], vec![2; 10], vec![3; 68]]);
    let gguf = Gguf::open(&target).unwrap();
    assert_eq!(gguf.data(gguf.tensor("a.weight").unwrap()), [4; 24]);
    assert_eq!(files(), 1);
}

#[test]
fn a_target_that_comes_into_being_meanwhile_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out.gguf");
    let writer = Writer::create(&target, &Layout::new(), false).unwrap();
    fs::write(&target, b"precious").unwrap();
    assert!(matches!(*writer.finish().unwrap_err().fault, Fault::Exists));
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn targets_that_are_no_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let create = |target: &Path| Writer::create(target, &Layout::new(), true).unwrap_err();
    assert!(matches!(*create(folder.path()).fault, Fault::Directory));
    assert!(matches!(*create(Path::new("/dev/null")).fault, Fault::NotRegular));
    let nowhere = create(&folder.path().join("missing/out.gguf")).to_string();
    let expected = format!(
        "missing/out.gguf: cannot be written: the folder {} is not there",
        folder.path().join("missing").display()
    );
    assert!(nowhere.ends_with(&expected), "{nowhere}");
}

#[test]
fn plans_that_no_file_can_have_are_refused() {
    let fault = |change: fn(&mut Layout)| {
        let mut layout = python_layout();
        change(&mut layout);
        layout.encode().unwrap_err()
    };
    let again = fault(|layout| layout.add_tensor("a.weight", [1; 4], 1, TensorType::F32));
    assert!(matches!(again, Fault::DuplicateTensor(name) if name == "a.weight"));
    let block = fault(|layout| layout.add_tensor("x", [33, 1, 1, 1], 1, TensorType::Q8_0));
    assert!(matches!(block, Fault::Block { ne0: 33, .. }));
    let dims = fault(|layout| layout.add_tensor("x", [4, 4, 1, 1], 1, TensorType::F32));
    assert!(matches!(dims, Fault::Dimensions { n_dims: 1, .. }));
    let long = fault(|layout| layout.add_tensor(&"x".repeat(64), [1; 4], 1, TensorType::F32));
    assert!(matches!(long, Fault::BadName { index: 3, .. }));
    let alignment = fault(|layout| layout.set("general.alignment", 64u32));
    assert!(matches!(alignment, Fault::Alignment(_)));
    let total = fault(|layout| {
        for name in ["x", "y", "z", "w"] {
            layout.add_tensor(name, [1 << 61, 1, 1, 1], 1, TensorType::I8);
        }
    });
    assert!(matches!(total, Fault::Memory(_)));
}

#[test]
fn the_same_file_is_seen_through_links() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, link] = ["a", "b", "link"].map(|name| folder.path().join(name));
    fs::write(&a, b"x").unwrap();
    fs::write(&b, b"x").unwrap();
    std::os::unix::fs::symlink(&a, &link).unwrap();
    assert!(same_file(&a, &link) && same_file(&a, &folder.path().join("./a")));
    assert!(!same_file(&a, &b) && !same_file(&a, &folder.path().join("missing")));
}

/// Runs one test of this file again, in a process of its own, where `ROLE` is set.
fn again_as(test: &str, role: &str) -> std::process::Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, role)
        .output()
        .unwrap()
}

const ROLE: &str = "GEMMA3N_TEST_ROLE";

/// A file of 64 pages, mapped.
fn large_file(folder: &Path) -> (PathBuf, Gguf) {
    let path = folder.join("large.gguf");
    let mut layout = Layout::new();
    layout.add_tensor("t", [64 * 4096, 1, 1, 1], 1, TensorType::I8);
    write(&path, &layout, &[vec![1; 64 * 4096]]);
    let gguf = Gguf::open(&path).unwrap();
    (path, gguf)
}

#[test]
fn a_file_truncated_while_in_use_ends_the_process_with_its_name() {
    if let Ok(folder) = std::env::var(ROLE) {
        let (other, other_gguf) = large_file(Path::new(&folder));
        fs::rename(other, Path::new(&folder).join("other.gguf")).unwrap();
        let (path, gguf) = large_file(Path::new(&folder));
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
        touch(&other_gguf);
        touch(&gguf);
        unreachable!("the pages are gone");
    }
    let folder = tempfile::tempdir().unwrap();
    let test = "a_file_truncated_while_in_use_ends_the_process_with_its_name";
    let output = again_as(test, folder.path().to_str().unwrap());
    let path = folder.path().join("large.gguf");
    let expected = format!("error: {}: changed or truncated while in use\n", path.display());
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn other_bus_errors_are_left_alone() {
    if let Ok(folder) = std::env::var(ROLE) {
        let (_, gguf) = large_file(Path::new(&folder));
        touch(&gguf);
        // The handler of Rust's runtime, next in the chain, takes itself out at the first one and
        // waits for the fault to come again.
        signal_hook::low_level::raise(libc::SIGBUS).unwrap();
        signal_hook::low_level::raise(libc::SIGBUS).unwrap();
        unreachable!("the signal ends the process");
    }
    let folder = tempfile::tempdir().unwrap();
    let output = again_as("other_bus_errors_are_left_alone", folder.path().to_str().unwrap());
    assert_eq!(output.status.signal(), Some(libc::SIGBUS));
}

#[test]
fn locking_leaves_out_what_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let (_, gguf) = large_file(folder.path());
    let header = gguf.tensors()[0].offset();
    assert_eq!(gguf.lock(&["t"]).unwrap(), header);
    assert_eq!(gguf.lock(&[]).unwrap(), gguf.file_len());
}

#[test]
fn metadata_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Gguf>();
    shared::<Metadata>();
    shared::<Error>();
}
