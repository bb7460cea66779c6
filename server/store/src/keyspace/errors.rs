//! Why a key's value was not read or changed.

use std::error::Error;
use std::fmt;

/// The key holds a value of another type than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType;

impl fmt::Display for WrongType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key holds a value of another type")
    }
}

impl Error for WrongType {}

/// Nothing is known of the key, which is to be loaded before it is changed: see [`Keyspace::load_first`](super::Keyspace::load_first).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key is to be loaded before it is changed")
    }
}

impl Error for Unknown {}

/// Why a value was not changed in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// It is of another type.
    WrongType,
    /// As [`Unknown`].
    Unknown,
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpdateError::WrongType => WrongType.fmt(f),
            UpdateError::Unknown => Unknown.fmt(f),
        }
    }
}

impl Error for UpdateError {}

impl From<Unknown> for UpdateError {
    fn from(_: Unknown) -> Self {
        UpdateError::Unknown
    }
}

/// Why nothing was added to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// It is no string.
    WrongType,
    /// It is a string that is no integer.
    NotAnInteger,
    /// The sum is no 64-bit integer.
    Overflow,
    /// As [`Unknown`].
    Unknown,
}

impl From<Unknown> for AddError {
    fn from(_: Unknown) -> Self {
        AddError::Unknown
    }
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddError::WrongType => WrongType.fmt(f),
            AddError::NotAnInteger => f.write_str("the string is no integer"),
            AddError::Overflow => f.write_str("the sum is no 64-bit integer"),
            AddError::Unknown => Unknown.fmt(f),
        }
    }
}

impl Error for AddError {}
