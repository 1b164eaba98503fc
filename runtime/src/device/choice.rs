//! Which device the user wants: the text of `--device` in, a [`DeviceChoice`] out.

use std::{fmt, str::FromStr};

use crate::error::Error;

/// Which device to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best real GPU; the CPU where there is none.
    #[default]
    Auto,
    /// The CPU (burn's `flex` backend).
    Cpu,
    /// The best adapter that wgpu finds. A software adapter is used only where there is no other.
    Wgpu,
    /// The adapter with this index in [`adapters`](crate::device::adapters). Vulkan, Metal and DirectX 12 come first,
    /// OpenGL last.
    WgpuIndex(usize),
    /// The first adapter whose name contains this text; upper and lower case are equal.
    WgpuName(String),
    /// An NVIDIA GPU through CUDA, by its number. Needs a build with the feature `cuda`.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownDevice { given: text.to_owned() };
        match text.split_once(':') {
            None => match text {
                "auto" => Ok(Self::Auto),
                "cpu" => Ok(Self::Cpu),
                "wgpu" => Ok(Self::Wgpu),
                "cuda" => Ok(Self::Cuda(0)),
                _ => Err(unknown()),
            },
            Some(("wgpu", which)) if !which.is_empty() => {
                Ok(which.parse().map_or_else(|_| Self::WgpuName(which.to_owned()), Self::WgpuIndex))
            }
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| unknown()),
            Some(_) => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Wgpu => f.write_str("wgpu"),
            Self::WgpuIndex(index) => write!(f, "wgpu:{index}"),
            Self::WgpuName(name) => write!(f, "wgpu:{name}"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_reads_what_it_prints() {
        for text in ["auto", "cpu", "wgpu", "wgpu:3", "wgpu:llvmpipe", "cuda:1"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        for text in ["", "gpu", "wgpu:", "cuda:x", "cpu:1"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
