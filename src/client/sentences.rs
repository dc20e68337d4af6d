//! Sentences of the client's own.

/// How many commands have not reached the server.
pub(super) fn left_behind(count: usize) -> String {
    match count {
        0 => "Nothing was left unsent.".into(),
        1 => "1 command has not reached the server; it is kept and sent at the next start.".into(),
        count => format!("{count} commands have not reached the server; they are kept and sent at the next start."),
    }
}
