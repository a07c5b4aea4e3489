//! How a person writes a key: UTF-8, with `\xNN` for every byte that is not printable.

use thiserror::Error;

/// Why a written key is none.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "bad escape at byte {at} of the key: write \\xNN (two hex digits), or \\\\ for a backslash"
)]
pub struct InvalidKey {
    /// Where in the text, in bytes.
    pub at: usize,
}

/// Shows a key so that [`parse`] reads it back unchanged.
pub fn display(key: &[u8]) -> String {
    let mut shown = String::with_capacity(key.len());
    for chunk in key.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => shown.push_str("\\\\"),
                character if character.is_control() => {
                    let mut buffer = [0; 4];
                    escape(&mut shown, character.encode_utf8(&mut buffer).as_bytes());
                }
                character => shown.push(character),
            }
        }
        escape(&mut shown, chunk.invalid());
    }
    shown
}

fn escape(shown: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        shown.push_str("\\x");
        shown.push(DIGITS[usize::from(byte >> 4)] as char);
        shown.push(DIGITS[usize::from(byte & 15)] as char);
    }
}

/// Reads a key as a person writes it.
///
/// # Errors
/// A backslash that starts neither `\xNN` nor `\\`.
pub fn parse(text: &str) -> Result<Vec<u8>, InvalidKey> {
    let bytes = text.as_bytes();
    let mut key = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            key.push(bytes[at]);
            at += 1;
            continue;
        }
        match bytes.get(at + 1) {
            Some(b'\\') => {
                key.push(b'\\');
                at += 2;
            }
            Some(b'x') => {
                let digit = |offset: usize| {
                    bytes
                        .get(at + offset)
                        .and_then(|byte| (*byte as char).to_digit(16))
                        .ok_or(InvalidKey { at })
                };
                key.push((digit(2)? * 16 + digit(3)?) as u8);
                at += 4;
            }
            Some(_) | None => return Err(InvalidKey { at }),
        }
    }
    Ok(key)
}
