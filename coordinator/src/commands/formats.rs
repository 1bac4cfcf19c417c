//! The formats of results on the command line.

use clap::ValueEnum;
use halfheard_results::{audit, tables};

/// Defines a flag's values and what they stand for.
macro_rules! formats {
    ($(#[$doc:meta])* $name:ident => $target:path { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl From<$name> for $target {
            fn from(format: $name) -> Self {
                match format {
                    $($name::$variant => Self::$variant),+
                }
            }
        }
    };
}

formats! {
    /// The format of a table.
    TableFormat => tables::render::Format {
        /// For a terminal
        Text,
        /// Markdown: best in bold, second underlined
        Markdown,
        /// LaTeX with booktabs
        Latex,
        /// One row per value, for spreadsheets and scripts
        Csv,
        /// Everything, for programs
        Json,
        /// HTML, one table element per block
        Html,
    }
}

formats! {
    /// The format of findings.
    AuditFormat => audit::render::Format {
        /// For a terminal
        Text,
        /// Markdown: a list by severity
        Markdown,
        /// Every finding with all its places
        Json,
    }
}
