use proptest::prelude::*;

use super::*;

fn view<'a>(value: &'a Value<'a>) -> StringRef<'a> {
    let view = match value {
        Value::Integer(number) => ValueView::Integer(*number),
        Value::Short { bytes, raw } => ValueView::Short { bytes, raw: *raw },
        Value::Big(string) => ValueView::Big(string),
        Value::Absent | Value::CompactHash(_) | Value::HashTable(_) => panic!("not a string"),
    };
    StringRef::of(view).expect("a string")
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..100),
        prop::collection::vec(0..3u8, 0..40_000),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_form_reads_as_it_was_set(text in texts(), compress_over in prop::option::of(0..5_000usize)) {
        let shared = Bytes::from(text.clone());
        for value in [compact_value(&text, compress_over), compact_shared(&shared, compress_over)] {
            let string = view(&value);
            prop_assert_eq!(string.len(), text.len());
            let mut scratch = vec![1, 2, 3];
            prop_assert_eq!(string.as_bytes(&mut scratch), &text[..]);
            prop_assert_eq!(string.to_vec(), &text[..]);
            match string.view() {
                StringView::Integer(number) => prop_assert_eq!(number.to_string().into_bytes(), &text[..]),
                StringView::Bytes(bytes) => prop_assert_eq!(bytes, &text[..]),
                StringView::Shared(bytes) => prop_assert_eq!(&bytes[..], &text[..]),
                StringView::Unpacked(bytes) => prop_assert_eq!(&bytes, &text),
            }
            if let Value::Big(mut string) = value {
                let copy = string.duplicate();
                prop_assert_eq!(&*string.make_unique(), &text);
                prop_assert_eq!(view(&Value::Big(Box::new(copy))).to_vec(), &text[..]);
            }
        }
    }

    #[test]
    fn changes_agree_with_a_vector(edits in prop::collection::vec((0..4u8, 0..300usize, prop::collection::vec(any::<u8>(), 0..200)), 0..20)) {
        let (mut bytes, mut model) = (Vec::new(), Vec::new());
        let mut string = StringMut::new(&mut bytes);
        for (kind, at, text) in edits {
            match kind {
                0 => {
                    string.append(&text);
                    model.extend_from_slice(&text);
                }
                1 => {
                    string.write_at(at, &text);
                    if !text.is_empty() {
                        model.resize(model.len().max(at + text.len()), 0);
                        model[at..at + text.len()].copy_from_slice(&text);
                    }
                }
                2 => {
                    string.resize(at);
                    model.resize(at, 0);
                }
                _ => {
                    string.as_mut_slice().reverse();
                    model.reverse();
                }
            }
            prop_assert_eq!(string.as_slice(), &model[..]);
        }
    }
}

#[test]
fn encodings_have_the_names_that_redis_gives_them() {
    let encoding = |text: &[u8]| view(&compact_value(text, None)).encoding().as_str();
    assert_eq!(encoding(b"123"), "int");
    assert_eq!(encoding(b"0123"), "embstr");
    assert_eq!(encoding(&[b'x'; 44]), "embstr");
    assert_eq!(encoding(&[b'x'; 45]), "raw");
    assert_eq!(encoding(&[b'x'; 5000]), "raw");
    assert_eq!(view(&text_value(b"123", None)).encoding().as_str(), "embstr");
    assert_eq!(view(&changed_value(&mut b"123".to_vec())).encoding().as_str(), "raw");
}

#[test]
fn readers_of_a_long_string_share_its_memory() {
    let text = vec![b'x'; SHARED_MIN];
    let Value::Big(mut string) = compact_value(&text, None) else { panic!("long strings are objects") };
    let (StringView::Shared(held), StringView::Shared(again)) = (string.view(), string.view()) else {
        panic!("long strings are shared")
    };
    assert_eq!(held.as_ptr(), again.as_ptr());
    string.make_unique().push(b'y');
    assert_eq!(held.len(), SHARED_MIN, "a reader's copy does not change");
    drop((held, again));
    let before = string.make_unique().as_ptr();
    string.make_shareable();
    assert_eq!(string.make_unique().as_ptr(), before, "what nobody else holds is not copied");
}

#[test]
fn only_what_compresses_well_is_compressed() {
    let form = |text: &[u8], over| match compact_value(text, over) {
        Value::Big(string) => matches!(*string, BigString::Compressed { .. }),
        _ => false,
    };
    let mut random = crate::random::Random::new(3);
    let noise: Vec<u8> = (0..5000).map(|_| random.next() as u8).collect();
    assert!(form(&[b'x'; 5000], Some(4999)));
    assert!(!form(&[b'x'; 5000], Some(5000)));
    assert!(!form(&[b'x'; 5000], None));
    assert!(!form(&noise, Some(1)));
}

#[test]
fn appending_copies_rarely() {
    let mut bytes = Vec::new();
    let mut moves = 0;
    for _ in 0..100_000 {
        let capacity = bytes.capacity();
        StringMut::new(&mut bytes).append(b"x");
        moves += usize::from(bytes.capacity() != capacity);
    }
    assert!(moves < 20, "{moves} moves");
}
