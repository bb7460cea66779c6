//! Strings as a whole: reading, replacing and taking them.

use forebay_resp::{Args, Reply};
use forebay_store::{Expiry, Key, Keyspace, Presence, StringRef, StringView, Unknown, ValueRef, WrongType};

use super::call::Call;
use super::error::CommandError;
use super::expire_options::{ExpireTime, Lifetime, TimeForm};
use super::spec::{Categories, Flags, KeySpec, KeyUse, Load, Merge, Spec};

const READ_FAST: Flags = Flags::READONLY.union(Flags::FAST);
const WRITE_FAST: Flags = Flags::WRITE.union(Flags::FAST);
const GROW: Flags = Flags::WRITE.union(Flags::DENYOOM);
const GROW_FAST: Flags = GROW.union(Flags::FAST);

const READ: KeyUse = KeyUse::RO.union(KeyUse::ACCESS);
const REPLACE: KeyUse = KeyUse::RW.union(KeyUse::ACCESS).union(KeyUse::UPDATE);

pub(super) static TABLE: &[Spec] = &[
    Spec::new("get", 2, READ_FAST, Categories::STRING)
        .keys(&[KeySpec::one(READ)])
        .load(Load::OnMiss)
        .on_keys(get)
        .docs("string", "1.0.0", "O(1)", "Tells the string value of a key.", "key"),
    Spec::new("getdel", 2, WRITE_FAST, Categories::STRING)
        .keys(&[KeySpec::one(KeyUse::RW.union(KeyUse::ACCESS).union(KeyUse::DELETE))])
        .load(Load::OnMiss)
        .on_keys(getdel)
        .docs("string", "6.2.0", "O(1)", "Tells the string value of a key and removes the key.", "key"),
    Spec::new("getex", -2, WRITE_FAST.union(Flags::CACHE_ONLY), Categories::STRING)
        .keys(&[KeySpec::one(REPLACE).noted("RW and UPDATE because it changes the TTL")])
        .load(Load::OnMiss)
        .on_keys(getex)
        .docs(
            "string",
            "6.2.0",
            "O(1)",
            "Tells the string value of a key and sets or takes away its deadline.",
            "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
        ),
    Spec::new("getset", 3, GROW_FAST, Categories::STRING)
        .keys(&[KeySpec::one(REPLACE)])
        .load(Load::Before)
        .on_keys(getset)
        .deprecated("6.2.0", "`SET` with `GET`")
        .docs("string", "1.0.0", "O(1)", "Sets a key to a string and tells the string that it replaces.", "key value"),
    Spec::new("mget", -2, READ_FAST, Categories::STRING)
        .keys(&[KeySpec::range(READ, 1, -1, 1)])
        .load(Load::OnMiss)
        .on_keys(mget)
        .split(Merge::Elements)
        .tips(&["request_policy:multi_shard"])
        .docs(
            "string",
            "1.0.0",
            "O(N), N being the number of keys",
            "Tells the string values of several keys.",
            "key [key ...]",
        ),
    Spec::new("mset", -3, GROW, Categories::STRING)
        .keys(&[KeySpec::range(KeyUse::OW.union(KeyUse::UPDATE), 1, -1, 2)])
        .on_keys(mset)
        .split(Merge::AllOk)
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .docs(
            "string",
            "1.0.1",
            "O(N), N being the number of keys",
            "Sets several keys to strings, all at once.",
            "key value [key value ...]",
        ),
    Spec::new("msetnx", -3, GROW, Categories::STRING)
        .keys(&[KeySpec::range(KeyUse::OW.union(KeyUse::INSERT), 1, -1, 2)])
        .load(Load::AllBefore)
        .on_keys(msetnx)
        .tips(&["request_policy:multi_shard", "response_policy:agg_min"])
        .docs(
            "string",
            "1.0.1",
            "O(N), N being the number of keys",
            "Sets several keys to strings if none of them exists.",
            "key value [key value ...]",
        ),
    Spec::new("psetex", 4, GROW, Categories::STRING)
        .keys(&[KeySpec::one(KeyUse::OW.union(KeyUse::UPDATE))])
        .on_keys(psetex)
        .deprecated("2.6.12", "`SET` with `PX`")
        .docs(
            "string",
            "2.6.0",
            "O(1)",
            "Sets a key to a string that expires after some milliseconds.",
            "key milliseconds value",
        ),
    Spec::new("set", -3, GROW, Categories::STRING)
        .keys(&[KeySpec::one(REPLACE.union(KeyUse::VARIABLE_FLAGS))
            .noted("RW and ACCESS due to the optional `GET` argument")])
        .variable_use(use_of_set)
        .load(Load::BeforeWhen(set_depends_on_the_past))
        .on_keys(set)
        .docs(
            "string",
            "1.0.0",
            "O(1)",
            "Sets a key to a string, whatever it held.",
            "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
             PXAT unix-time-milliseconds | KEEPTTL]",
        ),
    Spec::new("setex", 4, GROW, Categories::STRING)
        .keys(&[KeySpec::one(KeyUse::OW.union(KeyUse::UPDATE))])
        .on_keys(setex)
        .deprecated("2.6.12", "`SET` with `EX`")
        .docs(
            "string",
            "2.0.0",
            "O(1)",
            "Sets a key to a string that expires after some seconds.",
            "key seconds value",
        ),
    Spec::new("setnx", 3, GROW_FAST, Categories::STRING)
        .keys(&[KeySpec::one(KeyUse::OW.union(KeyUse::INSERT))])
        .load(Load::Before)
        .on_keys(setnx)
        .deprecated("2.6.12", "`SET` with `NX`")
        .docs("string", "1.0.0", "O(1)", "Sets a key to a string if it does not exist.", "key value"),
];

/// Only `GET` makes SET a reader.
fn use_of_set(args: Args<'_>) -> KeyUse {
    match args.iter().skip(3).any(|word| word.eq_ignore_ascii_case(b"get")) {
        true => REPLACE,
        false => KeyUse::OW | KeyUse::UPDATE,
    }
}

fn get(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    answer_or_null(call.reply, keyspace.read_string(&call.keys[0])?);
    Ok(())
}

fn mget(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    call.reply.array(call.keys.len());
    for key in call.keys {
        answer_or_null(call.reply, keyspace.read_string(key).unwrap_or(None));
    }
    Ok(())
}

fn getset(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let key = &call.keys[0];
    answer_current(call, keyspace, key)?;
    call.set_string(keyspace, key, 2, Expiry::None);
    Ok(())
}

fn getdel(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let key = &call.keys[0];
    match keyspace.read_string(key)? {
        None => call.reply.null(),
        Some(value) => {
            answer(call.reply, value);
            keyspace.remove(key);
        }
    }
    Ok(())
}

fn getex(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let lifetime = getex_lifetime(call.args)?;
    let key = &call.keys[0];
    let Some(value) = keyspace.read_string(key)? else {
        call.reply.null();
        return Ok(());
    };
    answer(call.reply, value);
    match lifetime {
        Lifetime::Unsaid | Lifetime::Keep => {}
        Lifetime::Persist => take_deadline_away(keyspace, key),
        Lifetime::Until(time) => {
            let deadline = time.deadline(call.now, call.command.full_name)?;
            set_deadline(keyspace, key, time, deadline);
        }
    }
    Ok(())
}

fn getex_lifetime(args: Args<'_>) -> Result<Lifetime<'_>, CommandError> {
    let mut lifetime = Lifetime::Unsaid;
    let mut at = 2;
    while let Some(word) = args.get(at) {
        let (said, taken) = lifetime.then(word, args.get(at + 1)).ok_or(CommandError::Syntax)?;
        if said == Lifetime::Keep {
            return Err(CommandError::Syntax);
        }
        lifetime = said;
        at += taken;
    }
    Ok(lifetime)
}

fn take_deadline_away(keyspace: &mut Keyspace<'_>, key: &Key<'_>) {
    if keyspace.deadline(key).flatten().is_some() {
        keyspace.set_deadline(key, None);
    }
}

/// An absolute time may have passed already, which removes the key at once.
fn set_deadline(keyspace: &mut Keyspace<'_>, key: &Key<'_>, time: ExpireTime<'_>, deadline: i64) {
    if !time.is_relative() && deadline <= keyspace.now() {
        keyspace.remove(key);
    } else {
        keyspace.set_deadline(key, Some(deadline));
    }
}

/// What SET's options ask for.
struct SetOptions<'c> {
    condition: Option<Condition>,
    /// Whether the reply is the value that was there.
    get: bool,
    lifetime: Lifetime<'c>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    IfMissing,
    IfPresent,
}

impl<'c> SetOptions<'c> {
    #[inline]
    fn parse(args: Args<'c>) -> Result<SetOptions<'c>, CommandError> {
        let mut options = SetOptions { condition: None, get: false, lifetime: Lifetime::Unsaid };
        let mut at = 3;
        while let Some(word) = args.get(at) {
            at += options.add(word, args.get(at + 1)).ok_or(CommandError::Syntax)?;
        }
        Ok(options)
    }

    /// Adds one option and answers how many arguments it takes; `None` if it is none, or contradicts another.
    fn add(&mut self, word: &[u8], next: Option<&'c [u8]>) -> Option<usize> {
        if word.eq_ignore_ascii_case(b"GET") {
            self.get = true;
            return Some(1);
        }
        if let Some(condition) = Condition::named(word) {
            let contradicts = self.condition.is_some_and(|earlier| earlier != condition);
            self.condition = Some(condition);
            return (!contradicts).then_some(1);
        }
        let (lifetime, taken) = self.lifetime.then(word, next)?;
        self.lifetime = lifetime;
        (lifetime != Lifetime::Persist).then_some(taken)
    }
}

impl Condition {
    fn named(word: &[u8]) -> Option<Condition> {
        match word {
            word if word.eq_ignore_ascii_case(b"NX") => Some(Condition::IfMissing),
            word if word.eq_ignore_ascii_case(b"XX") => Some(Condition::IfPresent),
            _ => None,
        }
    }

    fn holds(self, keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Result<bool, Unknown> {
        Ok(is_known_to_exist(keyspace, key)? == (self == Condition::IfPresent))
    }
}

/// Whether an option of SET builds on what the key holds. No amount looks like one of these words.
fn set_depends_on_the_past(args: Args<'_>) -> bool {
    const WORDS: [&[u8]; 4] = [b"NX", b"XX", b"GET", b"KEEPTTL"];
    args.skip(3).iter().any(|arg| WORDS.iter().any(|word| arg.eq_ignore_ascii_case(word)))
}

fn set(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let options = SetOptions::parse(call.args)?;
    let key = &call.keys[0];
    let expiry = match options.lifetime {
        Lifetime::Keep => Expiry::Keep,
        Lifetime::Until(time) => Expiry::At(time.deadline(call.now, call.command.full_name)?),
        Lifetime::Unsaid | Lifetime::Persist => Expiry::None,
    };
    if options.get {
        answer_current(call, keyspace, key)?;
    }
    let sets = match options.condition {
        Some(condition) => condition.holds(keyspace, key)?,
        None if expiry == Expiry::Keep => keyspace.expect_known(key).map(|()| true)?,
        None => true,
    };
    if sets {
        call.set_string(keyspace, key, 2, expiry);
    }
    match (options.get, sets) {
        (true, _) => {}
        (false, true) => call.reply.ok(),
        (false, false) => call.reply.null(),
    }
    Ok(())
}

fn setnx(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let key = &call.keys[0];
    let sets = !is_known_to_exist(keyspace, key)?;
    if sets {
        call.set_string(keyspace, key, 2, Expiry::None);
    }
    call.reply.integer(i64::from(sets));
    Ok(())
}

fn setex(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    set_for_a_time(call, keyspace, TimeForm::SECONDS)
}

fn psetex(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    set_for_a_time(call, keyspace, TimeForm::MILLISECONDS)
}

fn set_for_a_time(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>, form: TimeForm) -> Result<(), CommandError> {
    let time = ExpireTime { form, amount: call.arg(2) };
    let deadline = time.deadline(call.now, call.command.full_name)?;
    call.set_string(keyspace, &call.keys[0], 3, Expiry::At(deadline));
    call.reply.ok();
    Ok(())
}

fn mset(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    check_pairs(call)?;
    set_pairs(call, keyspace);
    call.reply.ok();
    Ok(())
}

fn msetnx(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    check_pairs(call)?;
    let sets = !call.keys.iter().any(|key| exists(keyspace, key));
    if sets {
        set_pairs(call, keyspace);
    }
    call.reply.integer(i64::from(sets));
    Ok(())
}

/// The arity admits a last key without a value.
fn check_pairs(call: &Call<'_>) -> Result<(), CommandError> {
    match call.args.len() % 2 {
        0 => Err(CommandError::Arity(call.command.full_name)),
        _ => Ok(()),
    }
}

fn set_pairs(call: &Call<'_>, keyspace: &mut Keyspace<'_>) {
    for (pair, key) in call.keys.iter().enumerate() {
        keyspace.set_string(key, call.arg(2 * pair + 2), Expiry::None);
    }
}

/// Answers the string that a command is about to replace.
fn answer_current(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Result<(), CommandError> {
    match keyspace.read_string(key)? {
        Some(value) => answer(call.reply, value),
        None => {
            keyspace.expect_known(key)?;
            call.reply.null();
        }
    }
    Ok(())
}

/// As [`exists`], for a change that depends on it.
fn is_known_to_exist(keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Result<bool, Unknown> {
    let exists = exists(keyspace, key);
    if !exists {
        keyspace.expect_known(key)?;
    }
    Ok(exists)
}

/// Whether the key exists, without that being a use of it.
fn exists(keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> bool {
    keyspace.presence(key) == Presence::Present
}

/// The string that a command is about to change: looked at, but not read by a client. Where there is none, the command asks
/// [`Keyspace::expect_known`].
pub(super) fn current<'k>(keyspace: &'k mut Keyspace<'_>, key: &Key<'_>) -> Result<Option<StringRef<'k>>, WrongType> {
    match keyspace.peek(key).map(|entry| entry.value()) {
        None => Ok(None),
        Some(ValueRef::String(value)) => Ok(Some(value)),
        Some(_) => Err(WrongType),
    }
}

#[inline]
fn answer_or_null(reply: &mut Reply, value: Option<StringRef<'_>>) {
    match value {
        Some(value) => answer(reply, value),
        None => reply.null(),
    }
}

/// A value as a bulk string: a number is written where it goes, a large value is linked and not copied.
#[inline]
fn answer(reply: &mut Reply, value: StringRef<'_>) {
    match value.view() {
        StringView::Integer(number) => reply.bulk_integer(number),
        StringView::Bytes(bytes) => reply.bulk(bytes),
        StringView::Shared(bytes) => reply.bulk_shared(bytes),
        StringView::Unpacked(bytes) => reply.bulk_shared(bytes.into()),
    }
}
