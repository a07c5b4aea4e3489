//! The two sequential objects that histories are compared with.
//!
//! [`Register`] is the one of the Jepsen histories: a number, or nothing yet.
//! [`KvModel`] is one key of the raw API. Neither knows about other keys; see
//! [`super::kv`] for histories over many.

use super::Model;

/// A register of a number with read, write and compare-and-set; empty at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

/// What a client asks of a [`Register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegisterInput {
    /// The present value.
    Read,
    /// Put this value, whatever was there.
    Write(i64),
    /// Put `to` if the present value is `from`.
    Cas {
        /// The value that must be there.
        from: i64,
        /// The value to put.
        to: i64,
    },
}

/// What a [`Register`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOutput {
    /// To a read: the value, `None` if never written.
    Value(Option<i64>),
    /// To a write.
    Written,
    /// To a compare-and-set: whether it took place.
    Swapped(bool),
}

impl Model for Register {
    type State = Option<i64>;
    type Input = RegisterInput;
    type Output = RegisterOutput;

    fn initial(&self) -> Option<i64> {
        None
    }

    fn step(
        &self,
        state: &Option<i64>,
        input: &RegisterInput,
        output: Option<&RegisterOutput>,
    ) -> Option<Option<i64>> {
        let (answer, after) = match *input {
            RegisterInput::Read => (RegisterOutput::Value(*state), *state),
            RegisterInput::Write(value) => (RegisterOutput::Written, Some(value)),
            RegisterInput::Cas { from, to } if *state == Some(from) => {
                (RegisterOutput::Swapped(true), Some(to))
            }
            RegisterInput::Cas { .. } => (RegisterOutput::Swapped(false), *state),
        };
        output.is_none_or(|seen| *seen == answer).then_some(after)
    }

    fn observes(&self, _input: &RegisterInput, output: &RegisterOutput) -> bool {
        match output {
            RegisterOutput::Value(_) | RegisterOutput::Swapped(false) => true,
            RegisterOutput::Written | RegisterOutput::Swapped(true) => false,
        }
    }
}

/// One key of the raw API; absent at first, or as [`KvModel::holding`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvModel {
    initial: Option<Vec<u8>>,
}

/// What a client asks of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KvInput {
    /// The present value.
    Get,
    /// Put this value.
    Put(Vec<u8>),
    /// Remove the key; no error if it is absent.
    Delete,
    /// Put `to` if the key holds `expected`; `None` expects it to be absent.
    Cas {
        /// What must be there.
        expected: Option<Vec<u8>>,
        /// The value to put.
        to: Vec<u8>,
    },
}

/// What one key answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvOutput {
    /// To a get: the value, `None` if absent.
    Value(Option<Vec<u8>>),
    /// To a put or a delete.
    Done,
    /// To a compare-and-set.
    Cas {
        /// Whether it took place.
        swapped: bool,
        /// The value before it.
        previous: Option<Vec<u8>>,
    },
}

impl KvModel {
    /// A key that holds `value` before the history begins.
    pub fn holding(value: Option<Vec<u8>>) -> KvModel {
        KvModel { initial: value }
    }
}

impl Model for KvModel {
    type State = Option<Vec<u8>>;
    type Input = KvInput;
    type Output = KvOutput;

    fn initial(&self) -> Option<Vec<u8>> {
        self.initial.clone()
    }

    fn step(
        &self,
        state: &Option<Vec<u8>>,
        input: &KvInput,
        output: Option<&KvOutput>,
    ) -> Option<Option<Vec<u8>>> {
        let (matches, after) = match input {
            KvInput::Get => {
                (output.is_none_or(|o| matches!(o, KvOutput::Value(seen) if seen == state)), state)
            }
            KvInput::Put(value) => {
                return output.is_none_or(is_done).then(|| Some(value.clone()));
            }
            KvInput::Delete => (output.is_none_or(is_done), &None),
            KvInput::Cas { expected, to } => {
                let swaps = state == expected;
                let agrees = |output: &KvOutput| match output {
                    KvOutput::Cas { swapped, previous } => *swapped == swaps && previous == state,
                    KvOutput::Value(_) | KvOutput::Done => false,
                };
                if swaps {
                    return output.is_none_or(agrees).then(|| Some(to.clone()));
                }
                (output.is_none_or(agrees), state)
            }
        };
        matches.then(|| after.clone())
    }

    fn observes(&self, _input: &KvInput, output: &KvOutput) -> bool {
        match output {
            KvOutput::Value(_) | KvOutput::Cas { swapped: false, .. } => true,
            KvOutput::Done | KvOutput::Cas { swapped: true, .. } => false,
        }
    }

    fn describe(&self, input: &KvInput, output: Option<&KvOutput>) -> String {
        let asked = match input {
            KvInput::Get => "get".to_owned(),
            KvInput::Put(value) => format!("put {}", show(value)),
            KvInput::Delete => "delete".to_owned(),
            KvInput::Cas { expected, to } => {
                format!("compare {} and set {}", show_option(expected), show(to))
            }
        };
        let answered = match output {
            None => "unknown".to_owned(),
            Some(KvOutput::Value(value)) => show_option(value),
            Some(KvOutput::Done) => "done".to_owned(),
            Some(KvOutput::Cas { swapped: true, .. }) => "swapped".to_owned(),
            Some(KvOutput::Cas { swapped: false, previous }) => {
                format!("not swapped, holds {}", show_option(previous))
            }
        };
        format!("{asked} -> {answered}")
    }

    fn describe_state(&self, state: &Option<Vec<u8>>) -> String {
        show_option(state)
    }
}

/// Bytes as quoted text with escapes, for explanations.
pub(super) fn show(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

fn show_option(value: &Option<Vec<u8>>) -> String {
    value.as_deref().map_or_else(|| "absent".to_owned(), show)
}

fn is_done(output: &KvOutput) -> bool {
    match output {
        KvOutput::Done => true,
        KvOutput::Value(_) | KvOutput::Cas { .. } => false,
    }
}
