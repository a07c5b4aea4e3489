//! Wire messages of Quorate and the domain types parsed from them.
