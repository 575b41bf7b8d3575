"""Materials as node trees: one that is seen, one that glows with its normal and depth.

Runs inside Blender, as studio.py does.
"""

import bpy

_EXTENSIONS = {"repeat": "REPEAT", "mirror": "MIRROR", "clamp": "EXTEND"}


class _Nodes:
    """A material's shader, as short calls."""

    def __init__(self, textures: dict) -> None:
        self.material = bpy.data.materials.new("material")
        self.material.use_nodes = True
        self._tree = self.material.node_tree
        self._tree.nodes.clear()
        self._textures = textures

    def add(self, kind: str, inputs: dict | None = None, **properties):
        node = self._tree.nodes.new(f"ShaderNode{kind}")
        for name, value in properties.items():
            setattr(node, name, value)
        for name, value in (inputs or {}).items():
            if isinstance(value, bpy.types.NodeSocket):
                self._tree.links.new(value, node.inputs[name])
            else:
                node.inputs[name].default_value = value
        return node

    def math(self, operation: str, a, b=0.0):
        return self.add("Math", {0: a, 1: b}, operation=operation).outputs[0]

    def scaled(self, vector, factor):
        return self.add("VectorMath", {0: vector, "Scale": factor}, operation="SCALE").outputs["Vector"]

    def times(self, a, b):
        return self.add("VectorMath", {0: a, 1: b}, operation="MULTIPLY").outputs["Vector"]

    def attribute(self, name: str):
        return self.add("Attribute", attribute_name=name).outputs

    def texture(self, texture: dict):
        """texture: "name"; "uv", its coordinates; "wrap_u", "wrap_v" (repeat, mirror, clamp); "nearest"."""
        vector = self.attribute(f"corner_{texture['uv']}")["Vector"]
        wraps, image = (texture["wrap_u"], texture["wrap_v"]), self._textures[texture["name"]]
        extension = _EXTENSIONS[wraps[0]]
        if wraps[0] != wraps[1]:
            # An image node wraps both axes alike: what does not repeat is brought within its edges before.
            u, v, _ = self.add("SeparateXYZ", {0: vector}).outputs
            u, v = (self._folded(*axis) for axis in zip((u, v), wraps, image.size, strict=True))
            vector = self.add("CombineXYZ", {0: u, 1: v}).outputs[0]
            extension = "REPEAT" if "repeat" in wraps else "EXTEND"
        interpolation = "Closest" if texture["nearest"] else "Linear"
        return self.add(
            "TexImage", {"Vector": vector}, image=image, extension=extension, interpolation=interpolation
        ).outputs

    def _folded(self, coordinate, wrap: str, size: int):
        if wrap == "repeat":
            return coordinate
        if wrap == "mirror":
            # Up from 0 to 1 and down again, every 2.
            coordinate = self.math("PINGPONG", coordinate, 1.0)
        half = 0.5 / size  # of a texel: no nearer to an edge, across which filtering would mix
        return self.math("MINIMUM", self.math("MAXIMUM", coordinate, half), 1.0 - half)

    def normal(self):
        """The corner's normal on the side that the camera sees, whichever way the face is wound."""
        behind = self.add("NewGeometry").outputs["Backfacing"]
        side = self.math("SUBTRACT", 1.0, self.math("MULTIPLY", behind, 2.0))
        return self.scaled(self.attribute("corner_normal")["Vector"], side)

    def albedo(self, material: dict):
        """(colour, alpha), of which alpha may be a plain number."""
        color, alpha = tuple(material["base_color"][:3]), material["base_color"][3]
        factors = [self.attribute("corner_color")] if material["has_colors"] else []
        factors += [self.texture(material["base_image"])] if material["base_image"] else []
        for factor in factors:
            color, alpha = self.times(color, factor["Color"]), self.math("MULTIPLY", alpha, factor["Alpha"])
        return color, alpha

    def finish(self, shader, alpha=None):
        if alpha is not None:
            clear = self.add("BsdfTransparent").outputs[0]
            shader = self.add("MixShader", {0: alpha, 1: clear, 2: shader}).outputs[0]
        self.add("OutputMaterial", {"Surface": shader})
        return self.material

    def covered(self, material: dict, alpha, blended: bool):
        """How much of the surface is there; None for all of it."""
        if material["alpha_mode"] == "opaque" or (material["alpha_mode"] == "blend" and blended):
            return alpha if material["alpha_mode"] == "blend" else None
        # Depths cannot be mixed: of what is blended, half covered counts as there.
        cutoff = material["alpha_cutoff"] if material["alpha_mode"] == "mask" else 0.5
        return self.math("SUBTRACT", 1.0, self.math("LESS_THAN", alpha, cutoff))

    def seen(self, material: dict, alpha):
        """A shell is seen by the camera alone, which it would else leave in the dark, and from its front."""
        if not material["is_shell"]:
            return alpha
        front = self.math("SUBTRACT", 1.0, self.add("NewGeometry").outputs["Backfacing"])
        front = self.math("MULTIPLY", front, self.add("LightPath").outputs["Is Camera Ray"])
        return front if alpha is None else self.math("MULTIPLY", alpha, front)


def albedo_material(material: dict, textures: dict):
    """Glows with the base colour alone."""
    nodes = _Nodes(textures)
    color, alpha = nodes.albedo(material)
    color = color if isinstance(color, bpy.types.NodeSocket) else (*color, 1.0)
    shader = nodes.add("Emission", {"Color": color}).outputs[0]
    return nodes.finish(shader, nodes.seen(material, nodes.covered(material, alpha, blended=True)))


def color_material(material: dict, textures: dict):
    """A Blender material that renders diffuse colour, alpha and emission, without speculars."""
    nodes = _Nodes(textures)
    color, alpha = nodes.albedo(material)
    color = color if isinstance(color, bpy.types.NodeSocket) else (*color, 1.0)
    if material["unlit"]:
        shader = nodes.add("Emission", {"Color": color}).outputs[0]
    else:
        shader = nodes.add("BsdfDiffuse", {"Color": color, "Normal": nodes.normal()}).outputs[0]
    if any(material["emission"]):
        glow = tuple(material["emission"])
        if material["emission_image"]:
            glow = nodes.times(glow, nodes.texture(material["emission_image"])["Color"])
        glow = glow if isinstance(glow, bpy.types.NodeSocket) else (*glow, 1.0)
        emission = nodes.add("Emission", {"Color": glow}).outputs[0]
        shader = nodes.add("AddShader", {0: shader, 1: emission}).outputs[0]
    return nodes.finish(shader, nodes.seen(material, nodes.covered(material, alpha, blended=True)))


def geometry_material(material: dict, textures: dict, far: float):
    """Glows with (x, y) of the normal, moved to 0..1, and the depth, raised by `far` where the normal's z is
    negative: an image holds three numbers a pixel, and we need four."""
    nodes = _Nodes(textures)
    normal = nodes.add("VectorMath", {0: nodes.normal()}, operation="NORMALIZE").outputs["Vector"]
    x, y, z = nodes.add("SeparateXYZ", {0: normal}).outputs
    x, y = (nodes.math("MULTIPLY_ADD", value, 0.5) for value in (x, y))
    for value in (x, y):
        value.node.inputs[2].default_value = 0.5
    depth = nodes.add("CameraData").outputs["View Z Depth"]
    below = nodes.math("MULTIPLY", nodes.math("LESS_THAN", z, 0.0), far)
    color = nodes.add("CombineXYZ", {0: x, 1: y, 2: nodes.math("ADD", depth, below)}).outputs[0]
    shader = nodes.add("Emission", {"Color": color}).outputs[0]
    _, alpha = nodes.albedo(material)
    return nodes.finish(shader, nodes.seen(material, nodes.covered(material, alpha, blended=False)))
