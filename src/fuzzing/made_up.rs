//! Input that a parser gets somewhere with.

use proptest::prelude::*;
use proptest::{collection, option, sample};

/// A field's name, and what it may be; "" where it is left out.
pub(super) type Field = (&'static str, &'static [&'static str]);

/// Anything, or a salad of the words that a parser looks for.
pub(super) fn input(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    let piece = prop_oneof![8 => word, 1 => collection::vec(any::<u8>(), 0..4)];
    let salad = collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat());
    prop_oneof![4 => salad, 1 => collection::vec(any::<u8>(), 0..200)]
}

/// A JSON object of the fields that a parser looks for, some of them odd or left out (""), and now
/// and then damaged.
pub(super) fn object(fields: &'static [Field]) -> impl Strategy<Value = Vec<u8>> {
    let object = |fields: Vec<_>| {
        let fields = fields.iter().map(|(name, value)| format!("\"{name}\":{value}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    };
    damaged(some_of(fields).prop_map(object))
}

/// As [`object`], a query.
#[cfg(feature = "login")]
pub(super) fn query(fields: &'static [Field]) -> impl Strategy<Value = Vec<u8>> {
    let query = |fields: Vec<_>| {
        let fields = fields.iter().map(|(name, value)| format!("{name}={value}"));
        fields.collect::<Vec<_>>().join("&")
    };
    damaged(some_of(fields).prop_map(query))
}

fn some_of(fields: &'static [Field]) -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let field = |(name, values): &'static Field| {
        sample::select(*values).prop_map(move |value| (*name, value))
    };
    let fields: Vec<_> = fields.iter().map(field).collect();
    fields.prop_map(|fields| fields.into_iter().filter(|(_, value)| !value.is_empty()).collect())
}

fn damaged(text: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let damage = option::weighted(0.1, (any::<sample::Index>(), any::<u8>()));
    (text, damage).prop_map(|(text, damage)| {
        let mut bytes = text.into_bytes();
        if let Some((at, byte)) = damage.filter(|_| !bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}
