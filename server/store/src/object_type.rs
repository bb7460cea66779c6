//! The names that clients know values by.

/// A value's type, as `TYPE` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectType {
    /// A string of bytes.
    String,
    /// A map of fields to values.
    Hash,
}

impl ObjectType {
    /// Redis' name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectType::String => "string",
            ObjectType::Hash => "hash",
        }
    }
}

/// How a value is kept, in the words of `OBJECT ENCODING` of Redis 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// A string that is an integer.
    Int,
    /// A short string that was set as a whole.
    EmbStr,
    /// A long string, or one that was changed in place.
    Raw,
    /// A small collection in one buffer.
    Compact,
    /// A large collection with an index.
    Table,
}

impl Encoding {
    /// Redis' name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Encoding::Int => "int",
            Encoding::EmbStr => "embstr",
            Encoding::Raw => "raw",
            Encoding::Compact => "listpack",
            Encoding::Table => "hashtable",
        }
    }
}
