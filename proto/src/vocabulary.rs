//! How the fixed words of a wire format are declared: one list, from which the
//! type, its spelling, its reading and the list of all words come.

/// Declares an enum whose variants are words of a wire format. From the same list
/// come the enum's `ALL`, `as_str`, `Display`, `FromStr`, `Serialize` and
/// `Deserialize`, so that a word that one of them knows is known to all.
macro_rules! vocabulary {
    (
        $(#[$about:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$about_word:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $visibility enum $name {
            $($(#[$about_word])* $variant,)+
        }

        impl $name {
            /// Each word, in the order of the declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word as it is spelled on the wire; its case counts.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::vocabulary::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $name::ALL.iter().copied().find(|word| word.as_str() == text).ok_or_else(|| {
                    let known: Vec<&str> = $name::ALL.iter().map(|word| word.as_str()).collect();
                    $crate::vocabulary::UnknownWord { text: text.to_owned(), known }
                })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use vocabulary;

/// A text that is none of the words that may stand in its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is none of {}", self.known.join(", "))]
pub struct UnknownWord {
    /// The text.
    pub text: String,
    /// The words.
    pub known: Vec<&'static str>,
}
