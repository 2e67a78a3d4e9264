//! `postmaster.opts`: the command line of the server that was started last.

/// Parameters that the command line set, in order, by their names in lower case: of each the last counts. `-D` and `-N`
/// are `data_directory` and `max_connections`.
///
/// The file quotes every argument and escapes nothing, so what holds `" "` is taken for two.
#[must_use]
pub fn parse_postmaster_opts(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default();
    let Some((_, arguments)) = line.split_once(" \"") else { return Vec::new() };
    let arguments = arguments.strip_suffix('"').unwrap_or(arguments);
    let mut arguments = arguments.split("\" \"");
    let mut found = Vec::new();
    while let Some(argument) = arguments.next() {
        let setting = if let Some(long) = argument.strip_prefix("--") {
            long.split_once('=').map(|(name, value)| (name, value.to_owned()))
        } else {
            let mut value_of = |option: &str| {
                let rest = argument.strip_prefix(option)?;
                if rest.is_empty() { arguments.next().map(str::to_owned) } else { Some(rest.to_owned()) }
            };
            let short = [("-D", "data_directory"), ("-N", "max_connections"), ("-c", "")];
            let given = short.into_iter().find_map(|(option, name)| Some((name, value_of(option)?)));
            match given {
                Some(("", setting)) => {
                    let setting = setting.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
                    found.extend(setting.map(|(name, value)| (normal(&name), value)));
                    None
                }
                given => given,
            }
        };
        found.extend(setting.map(|(name, value)| (normal(name), value)));
    }
    found
}

/// On a command line, dashes in a name are underscores.
fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_from_every_form() {
        let cases: [(&str, &[(&str, &str)]); 7] = [
            ("/usr/bin/postgres\n", &[]),
            ("", &[]),
            ("/usr/bin/postgres \"-D\" \"/data\"\n", &[("data_directory", "/data")]),
            (
                "/a b/postgres \"-D/data\" \"-p\" \"5433\" \"-c\" \"Max-WAL-senders=7\" \"-N\" \"20\"\n",
                &[("data_directory", "/data"), ("max_wal_senders", "7"), ("max_connections", "20")],
            ),
            (
                "postgres \"--max_connections=9\" \"--config-file=/etc/x y.conf\" \"-cport=1\" \"-F\"",
                &[("max_connections", "9"), ("config_file", "/etc/x y.conf"), ("port", "1")],
            ),
            ("postgres \"-c\" \"listen_addresses=\" \"-c\"", &[("listen_addresses", "")]),
            ("postgres \"-c\" \"broken\" \"--version\"", &[]),
        ];
        for (text, expected) in cases {
            let found = parse_postmaster_opts(text.as_bytes());
            let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
