//! Glob patterns, as `KEYS`, `SCAN … MATCH` and `CONFIG GET` take them.
//!
//! `?` is any one byte, `*` any number of bytes, `[a-f]` one byte of a class, `[^a-f]` one byte that is not of it, and a backslash takes
//! the meaning away from what follows it. Where a pattern is malformed or a case odd, the answer is Redis':
//! - the empty text is matched by the empty pattern alone, not by `*`;
//! - a class that is never closed reaches to the end of the pattern, and a backslash at the end is a backslash;
//! - the ends of a range may come in either order.
//!
//! Bytes are compared as unsigned numbers, which is what Redis does on ARM; on x86 its ranges take bytes from 0x80 on as negative.

/// Runs of `*` that a pattern may have before its last element. One with more describes nothing.
const MAX_STARS: usize = 1000;

/// Whether the whole of `text` is described by `pattern`. Takes time in proportion to the product of their lengths at worst, whatever
/// the pattern: of several `*`, only where the last one ends is ever reconsidered, since what matched before it stays matched.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let mut pattern = pattern;
    let mut rest = text;
    let mut last_star: Option<Star<'_>> = None;
    let mut stars = 0;
    while !rest.is_empty() {
        if pattern.starts_with(b"*") {
            pattern = without_stars(pattern);
            if pattern.is_empty() {
                return true;
            }
            stars += 1;
            if stars > MAX_STARS {
                return false;
            }
            last_star = Some(Star { pattern, rest });
        } else if let Some(after) = match_one(pattern, rest[0]) {
            pattern = after;
            rest = &rest[1..];
        } else if let Some(star) = &mut last_star {
            star.rest = &star.rest[1..];
            (pattern, rest) = (star.pattern, star.rest);
        } else {
            return false;
        }
    }
    without_stars(pattern).is_empty()
}

/// The pattern behind the run of `*` that it begins with.
fn without_stars(pattern: &[u8]) -> &[u8] {
    let stars = pattern.iter().take_while(|&&byte| byte == b'*').count();
    &pattern[stars..]
}

/// A `*` that took as few bytes as it could so far.
struct Star<'a> {
    /// What follows it.
    pattern: &'a [u8],
    /// Where its bytes end in the text.
    rest: &'a [u8],
}

/// What is left of the pattern if its first element, no `*`, describes `byte`.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', after @ ..] => Some(after),
        [b'[', b'^', class @ ..] => class_after(class, byte, false),
        [b'[', class @ ..] => class_after(class, byte, true),
        [b'\\', literal, after @ ..] | [literal, after @ ..] => (*literal == byte).then_some(after),
    }
}

/// What follows the class if whether it contains `byte` is as `wanted`.
fn class_after(class: &[u8], byte: u8, wanted: bool) -> Option<&[u8]> {
    let mut class = class;
    let mut contains = false;
    loop {
        class = match class {
            [] => break,
            [b'\\', literal, after @ ..] => {
                contains |= *literal == byte;
                after
            }
            [b']', after @ ..] => {
                class = after;
                break;
            }
            [start, b'-', end, after @ ..] => {
                contains |= (*start.min(end)..=*start.max(end)).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                contains |= *literal == byte;
                after
            }
        };
    }
    (contains == wanted).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What redis-server 7.0.15 answered.
    #[test]
    fn as_redis_matches() {
        for (pattern, text, matched) in [
            ("", "", true),
            ("*", "", false),
            ("**", "", false),
            ("?", "", false),
            ("", "a", false),
            ("*", "a", true),
            ("a**", "a", true),
            ("a?", "a", false),
            ("?*", "a", true),
            ("*?", "abc", true),
            ("h?llo", "hello", true),
            ("h*llo", "heeeello", true),
            ("h*llo", "hllo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("[a-c]", "b", true),
            ("[c-a]", "b", true),
            ("[a-]", "a", true),
            ("[a-]", "-", false),
            ("[a-]", "]", true),
            ("[]", "a", false),
            ("[]a]", "a]", false),
            ("[^]", "a", true),
            ("[", "[", false),
            ("[^", "a", true),
            ("[a", "a", true),
            ("[ab", "b", true),
            ("[\\]]", "]", true),
            ("[\\", "\\", true),
            ("[a\\-z]", "-", true),
            ("[a\\-z]", "c", false),
            ("\\", "\\", true),
            ("a\\", "a\\", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\a", "a", true),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xbxxa", false),
            ("*aab", "aaaab", true),
            ("foo*bar*", "foobarbaz", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), matched, "{pattern:?} and {text:?}");
        }
    }

    #[test]
    fn bytes_are_unsigned() {
        assert!(matches(b"[\x00-\xff]", b"\x80"));
        assert!(!matches(b"[\x7f-\xff]", b"\x00"));
    }

    /// There is no end of ways to divide the text among the stars, and all of them fail at its end.
    #[test]
    fn many_stars_take_no_more_than_the_product_of_the_lengths() {
        let text = vec![b'a'; 5_000];
        let mut pattern = b"a*".repeat(MAX_STARS);
        pattern.push(b'b');
        assert!(!matches(&pattern, &text));
        pattern.pop();
        assert!(matches(&pattern, &text));
    }

    #[test]
    fn too_many_stars_describe_nothing() {
        let text = vec![b'a'; MAX_STARS + 1];
        assert!(matches(&b"*?".repeat(MAX_STARS), &text));
        assert!(!matches(&b"*?".repeat(MAX_STARS + 1), &text));
        assert!(matches(&b"*".repeat(MAX_STARS + 1), &text));
    }

    /// Tries every length for every star, over the elements that the model is given apart.
    fn described(elements: &[Element], text: &[u8]) -> bool {
        match (elements, text) {
            ([], text) => text.is_empty(),
            ([Element::Star, rest @ ..], text) => (0..=text.len()).any(|taken| described(rest, &text[taken..])),
            ([one, rest @ ..], [byte, text @ ..]) => one.contains(*byte) && described(rest, text),
            (_, []) => false,
        }
    }

    #[derive(Clone, Debug)]
    enum Element {
        Star,
        Any,
        Literal(u8),
        Class { negated: bool, members: Vec<u8>, range: Option<(u8, u8)> },
    }

    impl Element {
        fn contains(&self, byte: u8) -> bool {
            match self {
                Element::Star => unreachable!("a star is no single byte"),
                Element::Any => true,
                Element::Literal(literal) => *literal == byte,
                Element::Class { negated, members, range } => {
                    let ranged = range.is_some_and(|(a, b)| (a.min(b)..=a.max(b)).contains(&byte));
                    (members.contains(&byte) || ranged) != *negated
                }
            }
        }

        fn write(&self, pattern: &mut Vec<u8>) {
            match self {
                Element::Star => pattern.push(b'*'),
                Element::Any => pattern.push(b'?'),
                Element::Literal(byte) => pattern.extend([b'\\', *byte]),
                Element::Class { negated, members, range } => {
                    pattern.extend_from_slice(if *negated { b"[^" } else { b"[" });
                    members.iter().for_each(|member| pattern.extend([b'\\', *member]));
                    if let Some((start, end)) = range {
                        pattern.extend([*start, b'-', *end]);
                    }
                    pattern.push(b']');
                }
            }
        }
    }

    fn element() -> impl Strategy<Value = Element> {
        let byte = || b'a'..=b'd';
        let class = (any::<bool>(), prop::collection::vec(byte(), 0..3), prop::option::of((byte(), byte())));
        prop_oneof![
            2 => Just(Element::Star),
            1 => Just(Element::Any),
            4 => byte().prop_map(Element::Literal),
            1 => class.prop_map(|(negated, members, range)| Element::Class { negated, members, range }),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_trying_everything(
            elements in prop::collection::vec(element(), 0..8),
            text in prop::collection::vec(b'a'..=b'd', 1..12),
        ) {
            let mut pattern = Vec::new();
            elements.iter().for_each(|element| element.write(&mut pattern));
            prop_assert_eq!(matches(&pattern, &text), described(&elements, &text));
        }

        #[test]
        fn any_bytes_are_a_pattern(pattern: Vec<u8>, text: Vec<u8>) {
            let _ = matches(&pattern, &text);
        }
    }
}
