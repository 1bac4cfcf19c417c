//! Rows by column, as `UNNEST` takes them.

/// Declares a row and the columns that an iterator of rows collects into.
macro_rules! rows {
    ($(#[doc = $doc:literal] $row:ident, $columns:ident { $($field:ident: $type:ty),+ $(,)? })+) => {$(
        #[doc = $doc]
        pub(crate) struct $row {
            $(pub(crate) $field: $type),+
        }

        #[doc = concat!("The columns of many [`", stringify!($row), "`].")]
        #[derive(Default)]
        pub(crate) struct $columns {
            $(pub(crate) $field: Vec<$type>),+
        }

        impl FromIterator<$row> for $columns {
            fn from_iter<I: IntoIterator<Item = $row>>(rows: I) -> Self {
                let mut columns = Self::default();
                for row in rows {
                    $(columns.$field.push(row.$field);)+
                }
                columns
            }
        }
    )+};
}

pub(crate) use rows;
