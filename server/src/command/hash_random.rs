//! HRANDFIELD: fields picked at random.

use std::collections::HashSet;

use forebay_resp::Protocol;
use forebay_store::{Encoding, HashRef, Keyspace};
use rand::seq::SliceRandom;

use super::call::Call;
use super::error::CommandError;

/// Bytes of reply at which a request for fields that may repeat is given up: its count is the client's word alone, and the picks are made
/// under a lock.
const MAX_REPEATED_BYTES: usize = 64 << 20;

/// Bytes of the shortest bulk string: `$0`, nothing, and two line ends.
const SHORTEST_BULK: usize = 6;

/// Of a large hash, fewer than one field in so many is picked by drawing until enough different ones have come up; for more, all are
/// shuffled.
const SPARSE_SHARE: usize = 3;

type Pair<'h> = (&'h [u8], &'h [u8]);

/// What is asked for beside the key.
struct Request {
    count: Count,
    with_values: bool,
}

/// How many fields.
#[derive(Clone, Copy)]
enum Count {
    /// One, and not as an array.
    One,
    /// As many different ones, or as there are.
    Different(usize),
    /// So many, which may repeat.
    Repeating(usize),
}

pub(super) fn hrandfield(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let request = Request::parse(call)?;
    let hash = keyspace.read_hash(&call.keys[0])?;
    match (request.count, hash) {
        (Count::One, None) => call.reply.null(),
        (Count::One, Some(hash)) => answer_one(call, hash),
        (Count::Different(_) | Count::Repeating(_), None) => call.reply.array(0),
        (Count::Different(count), Some(hash)) => answer_different(call, hash, count, request.with_values),
        (Count::Repeating(count), Some(hash)) => return answer_repeating(call, hash, count, request.with_values),
    }
    Ok(())
}

impl Request {
    fn parse(call: &Call<'_>) -> Result<Request, CommandError> {
        if call.args.len() == 2 {
            return Ok(Request { count: Count::One, with_values: false });
        }
        let count = call.integer_within(2, -i64::MAX..=i64::MAX)?;
        let with_values = match call.args.len() {
            3 => false,
            4 if call.is(3, "WITHVALUES") => true,
            _ => return Err(CommandError::Syntax),
        };
        // Twice the number has to be a number, too.
        if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
            return Err(CommandError::text("ERR value is out of range"));
        }
        let magnitude = count.unsigned_abs() as usize;
        let count = if count < 0 { Count::Repeating(magnitude) } else { Count::Different(magnitude) };
        Ok(Request { count, with_values })
    }
}

fn answer_one(call: &mut Call<'_>, hash: HashRef<'_>) {
    match hash.random(rand::random()) {
        Some((field, _)) => call.reply.bulk(field),
        None => call.reply.null(),
    }
}

fn answer_different(call: &mut Call<'_>, hash: HashRef<'_>, count: usize, with_values: bool) {
    let count = count.min(hash.len());
    answer_head(call, count, with_values);
    if count == hash.len() {
        hash.iter().for_each(|pair| answer_pair(call, pair, with_values));
    } else if is_compact(hash) || count * SPARSE_SHARE > hash.len() {
        let mut pairs: Vec<Pair<'_>> = hash.iter().collect();
        let (picked, _) = pairs.partial_shuffle(&mut rand::rng(), count);
        picked.iter().for_each(|pair| answer_pair(call, *pair, with_values));
    } else {
        let draws = std::iter::from_fn(|| hash.random(rand::random()));
        let mut seen = HashSet::with_capacity(count);
        let fresh = draws.filter(|(field, _)| seen.insert(*field));
        fresh.take(count).for_each(|pair| answer_pair(call, pair, with_values));
    }
}

fn answer_repeating(
    call: &mut Call<'_>,
    hash: HashRef<'_>,
    count: usize,
    with_values: bool,
) -> Result<(), CommandError> {
    if count > MAX_REPEATED_BYTES / SHORTEST_BULK {
        return Err(too_many());
    }
    answer_head(call, count, with_values);
    let limit = call.reply.len() + MAX_REPEATED_BYTES;
    // A compact hash is walked for each pick, so it is walked once for all of them.
    let listed: Vec<Pair<'_>> = if is_compact(hash) { hash.iter().collect() } else { Vec::new() };
    for _ in 0..count {
        let draw: u64 = rand::random();
        let picked = match listed.as_slice() {
            [] => hash.random(draw),
            listed => Some(listed[(draw % listed.len() as u64) as usize]),
        };
        picked.into_iter().for_each(|pair| answer_pair(call, pair, with_values));
        if call.reply.len() > limit {
            return Err(too_many());
        }
    }
    Ok(())
}

fn too_many() -> CommandError {
    CommandError::from(format!(
        "ERR the reply would be longer than {MAX_REPEATED_BYTES} bytes; ask for fewer fields at a time"
    ))
}

fn is_compact(hash: HashRef<'_>) -> bool {
    hash.encoding() == Encoding::Compact
}

/// In RESP3 a field and its value are an array of their own.
fn answer_head(call: &mut Call<'_>, count: usize, with_values: bool) {
    match (with_values, call.reply.protocol()) {
        (true, Protocol::Resp2) => call.reply.array(count * 2),
        (true, Protocol::Resp3) | (false, _) => call.reply.array(count),
    }
}

fn answer_pair(call: &mut Call<'_>, (field, value): Pair<'_>, with_values: bool) {
    if with_values && call.reply.protocol() == Protocol::Resp3 {
        call.reply.array(2);
    }
    call.reply.bulk(field);
    if with_values {
        call.reply.bulk(value);
    }
}
