//! Foreign classes become opaque values; nothing of them is ever done.

use super::*;

fn read(bytes: &[u8]) -> Pickle<'_> {
    Pickle::read(bytes, Limits::default()).expect("it is sound")
}

/// The value under `key` of the root.
fn at<'a>(pickle: &Pickle<'a>, key: &str) -> Value<'a> {
    pickle.get(pickle.root(), key).expect("it has the key")
}

#[test]
fn every_object_constructor_is_opaque() {
    for (bytes, class) in [
        // REDUCE by GLOBAL and by STACK_GLOBAL, INST, OBJ, NEWOBJ, NEWOBJ_EX.
        (&b"cos\nsystem\n(S'id'\ntR."[..], "os.system"),
        (
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
            "builtins.eval",
        ),
        (b"(S'id'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nX\x02\0\0\0ido.", "os.system"),
        (b"\x80\x02cpathlib\nPosixPath\n)\x81.", "pathlib.PosixPath"),
        (b"\x80\x04ca\nB\n)}\x8c\x01kK\x01s\x92.", "a.B"),
        // The class behind a helper.
        (b"ccopyreg\n_reconstructor\n(ca\nB\nNNtR.", "a.B"),
        (
            b"cbuiltins\ngetattr\n(cos\npath\nX\x01\0\0\0jtR.",
            "os.path",
        ),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmemmap\nK\x00\x85C\x01btR.",
            "numpy.memmap",
        ),
        // A call of an object, and the object made by something kept outside.
        (b"ca\nf\n)R)R.", "a.f"),
        // Arguments that a known name never has.
        (b"cnumpy\nndarray\n)R.", "numpy.ndarray"),
        (
            b"c_codecs\nencode\n\x8c\x01a\x8c\x05rot13\x86R.",
            "_codecs.encode",
        ),
        // Control characters of a name are shown, not printed.
        (
            b"\x80\x04\x8c\x02a\n\x8c\x03b\x1b[\x93)R.",
            "a\\n.b\\u{1b}[",
        ),
    ] {
        let pickle = read(bytes);
        let root = pickle.root();
        assert!(matches!(root, Value::Object(_)), "{class}: {root:?}");
        assert_eq!(pickle.class_of(root).as_deref(), Some(class));
        assert_eq!(pickle.end(), bytes.len());
    }
}

#[test]
fn opaque_object_keeps_its_arguments() {
    // {"o": a.B(1, k=2)} with state {"s": 3}, then a list and a dict of things put into it.
    let bytes = b"\x80\x04}\x8c\x01oca\nB\nK\x01\x85}\x8c\x01kK\x02s\x92}\x8c\x01sK\x03sb(K\x04K\x05eK\x06a\x8c\x01xK\x07ss.";
    let pickle = read(bytes);
    let value = at(&pickle, "o");
    let object = pickle.object(value).unwrap();
    assert_eq!(pickle.class(object.of), Some(("a", "B")));
    let args = pickle.items(object.args).unwrap();
    assert_eq!(args[0], Value::Int(1));
    assert_eq!(pickle.get(args[1], "k"), Some(Value::Int(2)));
    assert_eq!(pickle.get(object.state, "s"), Some(Value::Int(3)));
    let items = [4, 5, 6].map(Value::Int);
    assert_eq!(pickle.items(object.items), Some(&items[..]));
    // A class derived from dict is read as one.
    assert_eq!(pickle.get(value, "x"), Some(Value::Int(7)));
    assert_eq!(pickle.describe(value), "an object of `a.B`");
}

#[test]
fn persistent_ids_and_concatenated_pickles_are_read() {
    // A number over 64 bits, then ("storage", "0") by BINPERSID, then an id of protocol 0.
    let bytes = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02X\x07\0\0\0storageX\x01\0\0\x000\x86Q.Pid 7\n.rest";
    let first = read(bytes);
    assert_eq!(first.root(), Value::BigInt(b"l\xfc\x9cF\xf9 j\xa8P\x19"));
    let second = Pickle::read_at(bytes, first.end(), Limits::default()).unwrap();
    let id = second.persistent_id(second.root()).unwrap();
    assert_eq!(second.text(second.items(id).unwrap()[1]), Some("0"));
    let third = Pickle::read_at(bytes, second.end(), Limits::default()).unwrap();
    assert_eq!(third.persistent_id(third.root()), Some(Value::Str("id 7")));
    assert_eq!(&bytes[third.end()..], b"rest");
    // Offsets count from the start of the bytes; beyond the end there is no pickle.
    let error = Pickle::read_at(bytes, third.end(), Limits::default()).unwrap_err();
    assert_eq!(error.offset, third.end());
    for beyond in [bytes.len(), bytes.len() + 1, usize::MAX] {
        let error = Pickle::read_at(bytes, beyond, Limits::default()).unwrap_err();
        assert!(
            matches!(error.kind, PickleErrorKind::Truncated(_)),
            "{error}"
        );
    }
}

#[test]
fn plain_values_beside_objects_are_read() {
    let cases: [(&[u8], Value<'_>); 4] = [
        (b"\x8a\x00.", Value::Int(0)),
        (
            b"L-12345678901234567890L\n.",
            Value::Decimal("-12345678901234567890"),
        ),
        (b"I7\n.", Value::Int(7)),
        (b"X\x02\0\0\0\xed\xa0.", Value::BrokenStr(b"\xed\xa0")),
    ];
    for (bytes, value) in cases {
        assert_eq!(read(bytes).root(), value);
    }
    // What Python 2 wrote as a string.
    let pickle = read(b"S'a\\'\\x41\\n\\\\'\n.");
    assert_eq!(pickle.raw(pickle.root()), Some(&b"a'A\n\\"[..]));
    for broken in [
        &b"S'a\n."[..],
        b"S\n.",
        b"S'\\x4'\n.",
        b"S'\\'\n.",
        b"S'\\q'\n.",
        b"S'\n.",
    ] {
        assert!(Pickle::read(broken, Limits::default()).is_err());
    }
    // defaultdict(list, a=1), and an OrderedDict with attributes, as PyTorch's weights have them.
    let pickle = read(b"ccollections\ndefaultdict\ncbuiltins\nlist\n\x85RX\x01\0\0\0aK\x01s.");
    assert_eq!(at(&pickle, "a"), Value::Int(1));
    let pickle = read(b"ccollections\nOrderedDict\n)RX\x01\0\0\0aK\x01s}X\x01\0\0\0mK\x02sb.");
    assert_eq!(at(&pickle, "a"), Value::Int(1));
}

#[test]
fn unsupported_array_does_not_affect_others() {
    for code in ["c8", "V8", "M8[ns]", "U0"] {
        let mut bytes = b"}X\x01\0\0\0acnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(K\x01K\x01\x85cnumpy\ndtype\n(X".to_vec();
        bytes.extend((code.len() as u32).to_le_bytes());
        bytes.extend(code.as_bytes());
        bytes.extend(b"\x89\x88tR\x89C\x08abcdefghtbsX\x01\0\0\0bK\x01s.");
        let pickle = read(&bytes);
        let array = at(&pickle, "a");
        assert!(pickle.array(array).is_none() && pickle.objects(array).is_none());
        let described = pickle.describe(array);
        assert!(
            described.starts_with("an array that cannot be read (arrays of "),
            "{described}"
        );
        assert_eq!(at(&pickle, "b"), Value::Int(1));
    }
}

#[test]
fn objects_and_memo_are_limited() {
    let limits = Limits {
        objects: 10_000,
        memo: 1000,
        ..Limits::default()
    };
    let limit = |bytes: &[u8]| match Pickle::read(bytes, limits).unwrap_err().kind {
        PickleErrorKind::Limit { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(
        limit(&[&b"N"[..], &b"\x94".repeat(2000)].concat()),
        "memo entries"
    );
    assert_eq!(limit(b"Nr\xff\xff\xff\xff."), "memo entries");
    assert_eq!(
        limit(&[&b"ca\nB\n"[..], &b")R".repeat(100)].concat()),
        "levels of nesting"
    );
    assert_eq!(
        limit(&[&b"N"[..], &b"Q".repeat(100)].concat()),
        "levels of nesting"
    );
    assert_eq!(
        limit(&[&b"ca\nB\n)R"[..], &b"2b".repeat(100)].concat()),
        "levels of nesting"
    );
    assert_eq!(
        limit(&[&b"ca\nB\n)R"[..], &b"Na".repeat(20_000)].concat()),
        "objects"
    );
    assert_eq!(limit(&b"ca\nB\n0".repeat(20_000)), "objects");
    assert_eq!(limit(&b"ca\nB\n)R0".repeat(5000)), "objects");
    // The same entry again takes no more memory.
    let again = [&b"N"[..], &b"q\x01".repeat(5000), b"."].concat();
    assert!(Pickle::read(&again, limits).is_ok());
}
