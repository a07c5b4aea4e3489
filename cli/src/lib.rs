//! The one binary, quorate.
