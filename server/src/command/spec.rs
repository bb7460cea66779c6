//! The command table's row: everything the rest of the server wants to know about a command without running it.
//!
//! The names and numbers (arity, flags, key specifications, categories, tips) are Redis' own, since clients act on them; the
//! meaning of each is documented at <https://redis.io/docs/latest/commands/command/>.

use forebay_resp::Args;
use forebay_store::Keyspace;
use smallvec::SmallVec;

use super::call::{Call, Flow};
use super::error::CommandError;

bitflags::bitflags! {
    /// What a command does to the server and when it may run (Redis' command flags).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Flags: u32 {
        const WRITE = 1 << 0;
        const READONLY = 1 << 1;
        /// Refused when memory is above `maxmemory` and nothing can be evicted.
        const DENYOOM = 1 << 2;
        const ADMIN = 1 << 3;
        const PUBSUB = 1 << 4;
        const NOSCRIPT = 1 << 5;
        const BLOCKING = 1 << 6;
        const LOADING = 1 << 7;
        const STALE = 1 << 8;
        const SKIP_MONITOR = 1 << 9;
        const SKIP_SLOWLOG = 1 << 10;
        const ASKING = 1 << 11;
        const FAST = 1 << 12;
        /// Allowed before AUTH.
        const NO_AUTH = 1 << 13;
        const MAY_REPLICATE = 1 << 14;
        const NO_ASYNC_LOADING = 1 << 15;
        const NO_MULTI = 1 << 16;
        const MOVABLE_KEYS = 1 << 17;
        const ALLOW_BUSY = 1 << 18;
        const NO_MANDATORY_KEYS = 1 << 19;
        /// Not listed by `COMMAND`, as Redis hides its container subcommands' help.
        const SENTINEL = 1 << 20;
        /// Refused unless the process was started with leave for it (`--enable-debug-command`).
        const PROTECTED = 1 << 21;
        /// For nodes alone: to a client there is no such command.
        const INTERNAL = 1 << 23;
        /// Answered only when all copies that the cluster counts on hold what was done, whatever `--min-acks` says.
        const HELD_BY_ALL = 1 << 24;
        /// It changes what is cached and nothing of what the origin has, whatever the key's group writes there.
        const CACHE_ONLY = 1 << 25;
        /// Of use to developers of the server alone (`COMMAND DOCS` says `syscmd`).
        const SYSCMD = 1 << 22;
    }
}

bitflags::bitflags! {
    /// ACL categories that do not follow from [`Flags`] (see [`Spec::acl_categories`] for those that do).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Categories: u32 {
        const KEYSPACE = 1 << 0;
        const READ = 1 << 1;
        const WRITE = 1 << 2;
        const SET = 1 << 3;
        const SORTEDSET = 1 << 4;
        const LIST = 1 << 5;
        const HASH = 1 << 6;
        const STRING = 1 << 7;
        const BITMAP = 1 << 8;
        const HYPERLOGLOG = 1 << 9;
        const GEO = 1 << 10;
        const STREAM = 1 << 11;
        const PUBSUB = 1 << 12;
        const ADMIN = 1 << 13;
        const FAST = 1 << 14;
        const SLOW = 1 << 15;
        const BLOCKING = 1 << 16;
        const DANGEROUS = 1 << 17;
        const CONNECTION = 1 << 18;
        const TRANSACTION = 1 << 19;
        const SCRIPTING = 1 << 20;
    }
}

bitflags::bitflags! {
    /// How a command uses the keys of one key specification.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct KeyUse: u16 {
        const RO = 1 << 0;
        const RW = 1 << 1;
        const OW = 1 << 2;
        const RM = 1 << 3;
        const ACCESS = 1 << 4;
        const UPDATE = 1 << 5;
        const INSERT = 1 << 6;
        const DELETE = 1 << 7;
        const NOT_KEY = 1 << 8;
        const INCOMPLETE = 1 << 9;
        const VARIABLE_FLAGS = 1 << 10;
    }
}

/// Where a run of keys stands among the arguments.
#[derive(Debug, Clone, Copy)]
pub struct KeySpec {
    pub uses: KeyUse,
    pub begin: Begin,
    pub find: Find,
    /// A remark that `COMMAND` shows, where a flag alone would mislead.
    pub notes: Option<&'static str>,
}

/// The argument at which a run of keys begins.
#[derive(Debug, Clone, Copy)]
pub enum Begin {
    /// At this argument; the command's name is argument 0.
    Index(u16),
    /// After this word, looked for from argument `from` on.
    Keyword { word: &'static str, from: i16 },
}

/// How far a run of keys reaches.
#[derive(Debug, Clone, Copy)]
pub enum Find {
    /// Up to `last`, relative to the first key; negative counts from the last argument. Every `step`-th argument is a key.
    Range { last: i16, step: u16, limit: u16 },
    /// An argument tells the number of keys.
    Count { at: u16, first: u16, step: u16 },
}

/// Whether a missing key is loaded from the origin for this command.
#[derive(Clone, Copy)]
pub enum Load {
    /// Never: the command does not look at the current value, or speaks of the cache itself.
    Never,
    /// When the command read a key and found nothing. That run is discarded, so it must not have changed anything.
    OnMiss,
    /// Before the command changes its one key, since it builds on the current value. Where the handler finds none, it asks
    /// [`Keyspace::expect_known`] or leaves that to the store's updates, and has changed nothing yet. So a hit finds its key once.
    Before,
    /// `Before` when these arguments make it depend on the current value (`SET … GET`), else `Never`.
    BeforeWhen(fn(Args<'_>) -> bool),
    /// Before the command runs: it has several keys, and may change one before it looks at another.
    AllBefore,
}

/// How the replies to the parts of a request become one, where a request may be split by its keys among their owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Each part answers an array with an element for each key.
    Elements,
    /// Each part answers a number; together they are their sum.
    Sum,
    /// Each part answers OK.
    AllOk,
    /// Each part answers an array; together they are all their elements.
    Append,
    /// One node answers something or nothing, and then another one is asked.
    Any,
    /// A scan: each part lists keys, and tells how far it has come.
    Scan,
}

/// What runs the command.
#[derive(Clone, Copy)]
pub enum Run {
    /// Over a locked view of exactly the keys that the specification declares.
    Keys(fn(&mut Call<'_>, &mut Keyspace<'_>) -> Result<(), CommandError>),
    /// Over the session and the node. Takes the locks it needs itself.
    Node(fn(&mut Call<'_>) -> Result<Flow, CommandError>),
    /// By one of its subcommands.
    Subcommand,
}

/// One command.
#[derive(Clone, Copy)]
pub struct Spec {
    /// Lower case; a subcommand's is its own word alone.
    pub name: &'static str,
    /// Number of arguments with the name; negative for "at least".
    pub arity: i16,
    pub flags: Flags,
    pub categories: Categories,
    pub keys: &'static [KeySpec],
    pub load: Load,
    /// `None` if it must be run as a whole.
    pub split: Option<Merge>,
    /// Of commands that are about all keys, whoever owns them: each node of a cluster does its part.
    pub everywhere: Option<Merge>,
    pub run: Run,
    pub subcommands: &'static [Spec],
    /// Hints for clients and proxies (`request_policy:…`, `nondeterministic_output` …).
    pub tips: &'static [&'static str],
    /// The Redis version in which the command appeared.
    pub since: &'static str,
    /// Redis' documentation group.
    pub group: &'static str,
    pub complexity: &'static str,
    pub summary: &'static str,
    /// The arguments in the notation of the documentation (`key [EX seconds | PX milliseconds]`), which `COMMAND DOCS` expands.
    pub syntax: &'static str,
    pub deprecated: Option<Deprecation>,
    /// Which arguments are secrets, not to be shown in any log.
    pub secrets: fn(Args<'_>) -> Positions,
    /// How the keys are used if that depends on the arguments ([`KeyUse::VARIABLE_FLAGS`]).
    pub variable_use: fn(Args<'_>) -> KeyUse,
}

/// Since when a command is only kept for old clients.
#[derive(Debug, Clone, Copy)]
pub struct Deprecation {
    pub since: &'static str,
    pub replaced_by: &'static str,
}

/// What can be said of any use.
fn read_and_write(_: Args<'_>) -> KeyUse {
    KeyUse::RW | KeyUse::ACCESS | KeyUse::UPDATE
}

/// The secrets of most commands.
fn no_secrets(_: Args<'_>) -> Positions {
    Positions::new()
}

/// The positions of the keys among the arguments. Most commands have one.
pub type Positions = SmallVec<[u32; 16]>;

impl KeySpec {
    /// One key, right after the name.
    pub const fn one(uses: KeyUse) -> KeySpec {
        KeySpec::at(uses, 1)
    }

    /// The one key at argument `at`.
    pub const fn at(uses: KeyUse, at: u16) -> KeySpec {
        KeySpec::range(uses, at, 0, 1)
    }

    /// Keys from argument `first` to `last` (relative to the first key, negative from the end), every `step`-th.
    pub const fn range(uses: KeyUse, first: u16, last: i16, step: u16) -> KeySpec {
        KeySpec { uses, begin: Begin::Index(first), find: Find::Range { last, step, limit: 0 }, notes: None }
    }

    /// `numkeys key [key …]`, with the number at argument `at`.
    pub const fn counted(uses: KeyUse, at: u16) -> KeySpec {
        KeySpec { uses, begin: Begin::Index(at), find: Find::Count { at: 0, first: 1, step: 1 }, notes: None }
    }

    /// Adds a remark.
    pub const fn noted(mut self, notes: &'static str) -> KeySpec {
        self.notes = Some(notes);
        self
    }

    /// First key, last key and step, of keys that stand at fixed places.
    fn legacy_range(&self) -> Option<(i64, i64, i64)> {
        let (Begin::Index(first), Find::Range { last, step, .. }) = (self.begin, self.find) else {
            return None;
        };
        let (first, last) = (i64::from(first), i64::from(last));
        Some((first, if last >= 0 { first + last } else { last }, i64::from(step)))
    }

    fn collect(&self, args: Args<'_>, positions: &mut Positions) -> Result<(), InvalidKeyCount> {
        let Some(begin) = self.begin.resolve(args) else {
            return Ok(());
        };
        match self.find {
            Find::Range { last, step, .. } => {
                let end = match last {
                    0.. => begin + last as usize,
                    negative => args.len().saturating_sub(usize::from(negative.unsigned_abs())),
                };
                let end = end.min(args.len().saturating_sub(1));
                positions.extend((begin..=end).step_by(usize::from(step)).map(|at| at as u32));
                Ok(())
            }
            Find::Count { at, first, step } => {
                let count = args
                    .get(begin + usize::from(at))
                    .and_then(forebay_store::parse_integer)
                    .and_then(|count| usize::try_from(count).ok())
                    .filter(|&count| count > 0)
                    .ok_or(InvalidKeyCount)?;
                let first = begin + usize::from(first);
                let available = args.len().saturating_sub(first).div_ceil(usize::from(step));
                if count > available {
                    return Err(InvalidKeyCount);
                }
                positions.extend((0..count).map(|n| (first + n * usize::from(step)) as u32));
                Ok(())
            }
        }
    }
}

/// The argument that should tell the number of keys does not, or tells more than there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidKeyCount;

impl Begin {
    fn resolve(self, args: Args<'_>) -> Option<usize> {
        match self {
            Begin::Index(index) => Some(usize::from(index)).filter(|&index| index < args.len()),
            Begin::Keyword { word, from } => {
                let matches = |&at: &usize| args[at].eq_ignore_ascii_case(word.as_bytes());
                let found = match from {
                    0.. => (from as usize..args.len()).find(matches),
                    negative => {
                        let last = args.len().checked_sub(usize::from(negative.unsigned_abs()))?;
                        (1..=last).rev().find(matches)
                    }
                };
                found.map(|at| at + 1)
            }
        }
    }
}

impl Spec {
    /// A row with the parts that every command has; the builder methods below add the rest.
    pub const fn new(name: &'static str, arity: i16, flags: Flags, categories: Categories) -> Spec {
        Spec {
            name,
            arity,
            flags,
            categories,
            keys: &[],
            load: Load::Never,
            split: None,
            everywhere: None,
            run: Run::Subcommand,
            subcommands: &[],
            tips: &[],
            since: "1.0.0",
            group: "generic",
            complexity: "",
            summary: "",
            syntax: "",
            deprecated: None,
            secrets: no_secrets,
            variable_use: read_and_write,
        }
    }

    pub const fn keys(mut self, keys: &'static [KeySpec]) -> Spec {
        self.keys = keys;
        self
    }

    pub const fn load(mut self, load: Load) -> Spec {
        self.load = load;
        self
    }

    /// The command does the same when each owner of keys gets those of its own.
    pub const fn split(mut self, merge: Merge) -> Spec {
        self.split = Some(merge);
        self
    }

    /// The command is about the keys of all nodes.
    pub const fn everywhere(mut self, merge: Merge) -> Spec {
        self.everywhere = Some(merge);
        self
    }

    /// Runs over the locked keys.
    pub const fn on_keys(mut self, run: fn(&mut Call<'_>, &mut Keyspace<'_>) -> Result<(), CommandError>) -> Spec {
        self.run = Run::Keys(run);
        self
    }

    /// Runs over the session and the node.
    pub const fn on_node(mut self, run: fn(&mut Call<'_>) -> Result<Flow, CommandError>) -> Spec {
        self.run = Run::Node(run);
        self
    }

    pub const fn subcommands(mut self, subcommands: &'static [Spec]) -> Spec {
        self.subcommands = subcommands;
        self
    }

    pub const fn tips(mut self, tips: &'static [&'static str]) -> Spec {
        self.tips = tips;
        self
    }

    /// Marks the command as one that only old clients should use.
    pub const fn deprecated(mut self, since: &'static str, replaced_by: &'static str) -> Spec {
        self.deprecated = Some(Deprecation { since, replaced_by });
        self
    }

    /// Names the arguments that no log may show.
    pub const fn secrets(mut self, secrets: fn(Args<'_>) -> Positions) -> Spec {
        self.secrets = secrets;
        self
    }

    /// Tells how the keys are used, which depends on the arguments.
    pub const fn variable_use(mut self, variable_use: fn(Args<'_>) -> KeyUse) -> Spec {
        self.variable_use = variable_use;
        self
    }

    /// The documentation of the command: group, first version, complexity, one sentence, and the arguments' syntax.
    pub const fn docs(
        mut self,
        group: &'static str,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
        syntax: &'static str,
    ) -> Spec {
        self.group = group;
        self.since = since;
        self.complexity = complexity;
        self.summary = summary;
        self.syntax = syntax;
        self
    }

    /// Whether `count` arguments, the name included, are a right number.
    #[inline]
    pub fn accepts(&self, count: usize) -> bool {
        match self.arity {
            exact @ 0.. => count == exact as usize,
            least => count >= usize::from(least.unsigned_abs()),
        }
    }

    /// Where the keys stand in `args`.
    ///
    /// # Errors
    /// When an argument that tells the number of keys is not a number that fits.
    #[inline]
    pub fn key_positions(&self, args: Args<'_>) -> Result<Positions, InvalidKeyCount> {
        let mut positions = Positions::new();
        for spec in self.keys {
            if !spec.uses.contains(KeyUse::NOT_KEY) {
                spec.collect(args, &mut positions)?;
            }
        }
        Ok(positions)
    }

    /// Whether there is exactly one key, right behind the name.
    pub fn has_one_key(&self) -> bool {
        let [KeySpec { uses, begin: Begin::Index(1), find: Find::Range { last: 0, .. }, .. }] = self.keys else {
            return false;
        };
        !uses.contains(KeyUse::NOT_KEY) && self.arity.unsigned_abs() >= 2
    }

    /// Whether it reads one key, right behind the name, and answers the same until something is done to the key: nothing that depends on the
    /// time, on chance, or on what the reader has done before.
    pub fn is_repeatable(&self) -> bool {
        self.flags.contains(Flags::READONLY) && self.has_one_key() && !self.tips.contains(&"nondeterministic_output")
    }

    /// The keys in `args` with how the command uses each.
    ///
    /// # Errors
    /// As [`Spec::key_positions`].
    pub fn key_uses(&self, args: Args<'_>) -> Result<Vec<(usize, KeyUse)>, InvalidKeyCount> {
        let mut found = Vec::new();
        for spec in self.keys.iter().filter(|spec| !spec.uses.contains(KeyUse::NOT_KEY)) {
            let mut positions = Positions::new();
            spec.collect(args, &mut positions)?;
            let uses = match spec.uses.contains(KeyUse::VARIABLE_FLAGS) {
                true => (self.variable_use)(args),
                false => spec.uses,
            };
            found.extend(positions.into_iter().map(|at| (at as usize, uses)));
        }
        Ok(found)
    }

    /// First key, last key and step as `COMMAND` has listed them since before there were key specifications. Several count as one where
    /// each begins right behind the one before; zeros stand for what this cannot tell.
    pub fn legacy_range(&self) -> (i64, i64, i64) {
        let mut ranges = self.keys.iter().filter_map(KeySpec::legacy_range);
        let whole = ranges.next().unwrap_or((0, 0, 0));
        let joined = ranges.try_fold(whole, |before, next| match (before, next) {
            ((first, last, 1), (behind, end, 1)) if last + 1 == behind => Some((first, end, 1)),
            _ => None,
        });
        joined.unwrap_or((0, 0, 0))
    }

    /// All ACL categories: the row's own and those that follow from its flags.
    pub fn acl_categories(&self) -> Categories {
        let mut all = self.categories;
        all.set(Categories::WRITE, self.flags.contains(Flags::WRITE));
        let script = self.categories.contains(Categories::SCRIPTING);
        all.set(Categories::READ, self.flags.contains(Flags::READONLY) && !script);
        if self.flags.contains(Flags::ADMIN) {
            all |= Categories::ADMIN | Categories::DANGEROUS;
        }
        if self.flags.contains(Flags::PUBSUB) {
            all |= Categories::PUBSUB;
        }
        if self.flags.contains(Flags::BLOCKING) {
            all |= Categories::BLOCKING;
        }
        let fast = self.flags.contains(Flags::FAST);
        all | if fast { Categories::FAST } else { Categories::SLOW }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Range = (i64, i64, i64);

    /// As `COMMAND INFO` of redis-server 7.0.15 has them.
    const RANGES: &[(&[KeySpec], Range)] = &[
        (&[], (0, 0, 0)),
        (&[KeySpec::one(KeyUse::RO)], (1, 1, 1)),
        (&[KeySpec::range(KeyUse::OW, 1, -1, 2)], (1, -1, 2)),
        (&[KeySpec::at(KeyUse::RW, 1), KeySpec::at(KeyUse::OW, 2)], (1, 2, 1)),
        (&[KeySpec::at(KeyUse::OW, 2), KeySpec::range(KeyUse::RO, 3, -1, 1)], (2, -1, 1)),
        (&[KeySpec::at(KeyUse::RW, 1), KeySpec::at(KeyUse::OW, 3)], (0, 0, 0)),
        (&[KeySpec::counted(KeyUse::RO, 1)], (0, 0, 0)),
        (&[KeySpec::at(KeyUse::OW, 1), KeySpec::counted(KeyUse::RO, 2)], (1, 1, 1)),
    ];

    #[test]
    fn ranges_that_touch_are_one() {
        for (keys, range) in RANGES {
            let spec = Spec { keys, ..Spec::new("command", 1, Flags::empty(), Categories::empty()) };
            assert_eq!(spec.legacy_range(), *range, "{keys:?}");
        }
    }
}
