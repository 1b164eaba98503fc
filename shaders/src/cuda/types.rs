//! Types: their C++ names and declarations, and whether C++ lays them out as WGSL does.

use naga::{ArraySize, Handle, Scalar, ScalarKind, Type, TypeInner, VectorSize};

use super::{Context, CudaError, unsupported, variant};

impl Context<'_> {
    /// The C++ name of a type.
    pub fn type_name(&self, ty: Handle<Type>) -> Result<String, CudaError> {
        match self.types.get(&ty) {
            Some(name) => Ok(name.clone()),
            None => self.inner_name(&self.module.types[ty].inner),
        }
    }

    /// The same for a type that may have no handle.
    pub fn inner_name(&self, inner: &TypeInner) -> Result<String, CudaError> {
        match *inner {
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => Ok(scalar_name(scalar)?.into()),
            TypeInner::Vector { size, scalar } => Ok(format!("vec{}<{}>", size as u8, scalar_name(scalar)?)),
            TypeInner::Matrix { columns: VectorSize::Quad, rows: VectorSize::Quad, scalar } => {
                Ok(format!("mat4x4<{}>", scalar_name(scalar)?))
            }
            TypeInner::Array { base, size: ArraySize::Constant(count), .. } => {
                Ok(format!("array<{}, {count}>", self.type_name(base)?))
            }
            TypeInner::Pointer { base, .. } => Ok(format!("{}&", self.type_name(base)?)),
            ref other => Err(unsupported(format!("the type {}", variant(other)))),
        }
    }

    /// The declarations of all structs.
    pub fn structs(&self) -> Result<String, CudaError> {
        let mut text = String::new();
        for (handle, ty) in self.module.types.iter() {
            let (TypeInner::Struct { members, span }, Some(name)) = (&ty.inner, self.types.get(&handle)) else {
                continue;
            };
            text += &format!("struct {name} {{\n");
            for (index, member) in (0..).zip(members) {
                let name = self.member_name(handle, index)?;
                text += &format!("    {} {name};\n", self.type_name(member.ty)?);
            }
            text += &format!("}};\nstatic_assert(sizeof({name}) == {span}, \"the size of {name}\");\n\n");
        }
        Ok(text)
    }

    /// The C++ name of a member of a struct.
    pub fn member_name(&self, ty: Handle<Type>, index: u32) -> Result<&str, CudaError> {
        let name = self.members.get(&ty).and_then(|names| names.get(index as usize));
        name.map(String::as_str).ok_or_else(|| unsupported(format!("member {index} of a struct")))
    }

    /// Refuses types that C++ would lay out differently in memory.
    pub fn check_layout(&self) -> Result<(), CudaError> {
        for (_, ty) in self.module.types.iter() {
            match &ty.inner {
                TypeInner::Array { base, stride, .. } => {
                    let (size, _) = self.layout(*base)?;
                    if *stride != size {
                        let base = self.type_name(*base)?;
                        return Err(unsupported(format!("an array of {base} with {stride} bytes per element")));
                    }
                }
                TypeInner::Struct { members, span } => {
                    let mut end = 0u32;
                    for member in members {
                        let (size, align) = self.layout(member.ty)?;
                        if member.offset != end.next_multiple_of(align) {
                            let name = member.name.as_deref().unwrap_or("a member");
                            return Err(unsupported(format!("{name} at byte {} of a struct", member.offset)));
                        }
                        end = member.offset + size;
                    }
                    let (size, _) = self.inner_layout(&ty.inner)?;
                    if *span != size {
                        return Err(unsupported(format!("a struct of {span} bytes, {size} in C++")));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn layout(&self, ty: Handle<Type>) -> Result<(u32, u32), CudaError> {
        self.inner_layout(&self.module.types[ty].inner)
    }

    /// The size and the alignment of a type in C++.
    fn inner_layout(&self, inner: &TypeInner) -> Result<(u32, u32), CudaError> {
        let bytes = |scalar: Scalar| u32::from(scalar.width);
        Ok(match *inner {
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => (bytes(scalar), bytes(scalar)),
            TypeInner::Vector { size: VectorSize::Tri, scalar } => (3 * bytes(scalar), bytes(scalar)),
            TypeInner::Vector { size, scalar } => (size as u32 * bytes(scalar), size as u32 * bytes(scalar)),
            TypeInner::Matrix { columns: VectorSize::Quad, rows: VectorSize::Quad, scalar } => {
                (16 * bytes(scalar), 4 * bytes(scalar))
            }
            TypeInner::Array { base, size: ArraySize::Constant(count), .. } => {
                let (size, align) = self.layout(base)?;
                (size * count.get(), align)
            }
            TypeInner::Struct { ref members, .. } => {
                let (mut end, mut most) = (0u32, 1);
                for member in members {
                    let (size, align) = self.layout(member.ty)?;
                    end = end.next_multiple_of(align) + size;
                    most = most.max(align);
                }
                (end.next_multiple_of(most), most)
            }
            ref other => return Err(unsupported(format!("the type {} in memory", variant(other)))),
        })
    }
}

fn scalar_name(scalar: Scalar) -> Result<&'static str, CudaError> {
    match (scalar.kind, scalar.width) {
        (ScalarKind::Bool, _) => Ok("bool"),
        (ScalarKind::Uint, 4) => Ok("u32"),
        (ScalarKind::Sint, 4) => Ok("i32"),
        (ScalarKind::Float, 4) => Ok("f32"),
        (ScalarKind::Float, 2) => Ok("f16"),
        (kind, width) => Err(unsupported(format!("{kind:?} of {width} bytes"))),
    }
}
