"""GLSL of the OpenGL engine. Colours are linear light and premultiplied until the last pass."""

SURFACE_VERTEX = """
#version 330
uniform mat4 clip_from_world;
in vec3 in_position;
in vec3 in_normal;
in vec2 in_uv;
in vec2 in_emission_uv;
in vec4 in_color;
out vec3 position;
out vec3 normal;
out vec2 uv;
out vec2 emission_uv;
out vec4 color;
void main() {
    position = in_position;
    normal = in_normal;
    uv = in_uv;
    emission_uv = in_emission_uv;
    color = in_color;
    gl_Position = clip_from_world * vec4(in_position, 1.0);
}
"""

# The lights are those of lgm.lights, by the same formula.
SURFACE_FRAGMENT = """
#version 330
uniform vec3 camera;
uniform vec4 base_color;
uniform vec3 emission;
uniform sampler2D base_image;
uniform sampler2D emission_image;
uniform bool has_base_image;
uniform bool has_emission_image;
uniform ivec2 base_mirrored;  // along u and v; other wraps are the device's
uniform ivec2 emission_mirrored;
uniform bool unlit;
uniform int alpha_mode;  // 0 opaque, 1 mask, 2 blend
uniform float alpha_cutoff;
uniform float ground;
uniform float sky;
uniform vec3 lamp_directions[4];
uniform float lamp_strengths[4];
uniform bool draw_geometry;
uniform bool draw_albedo;
in vec3 position;
in vec3 normal;
in vec2 uv;
in vec2 emission_uv;
in vec4 color;
out vec4 premultiplied;

float irradiance(vec3 n) {
    float total = mix(ground, sky, 0.5 + 0.5 * n.y);
    for (int i = 0; i < 4; ++i)
        total += lamp_strengths[i] * max((dot(n, lamp_directions[i]) + 0.3) / 1.3, 0.0);
    return total;
}

// Every second time mirrored, which the binding to OpenGL can't ask of the device. The derivatives are those
// of the plain coordinates, which have no kinks.
vec4 sampled(sampler2D image, vec2 at, ivec2 mirrored) {
    if (mirrored == ivec2(0)) return texture(image, at);
    vec2 folded = 1.0 - abs(mod(at, 2.0) - 1.0);
    return textureGrad(image, mix(at, folded, vec2(mirrored)), dFdx(at), dFdy(at));
}

void main() {
    vec4 albedo = base_color * color;
    if (has_base_image) albedo *= sampled(base_image, uv, base_mirrored);
    if (alpha_mode == 1 && albedo.a < alpha_cutoff) discard;
    float alpha = alpha_mode == 2 ? albedo.a : 1.0;

    // Normals point anywhere in found meshes: each is turned to the side that the camera sees. The face's
    // own plane decides that, since an interpolated normal leans over the horizon at an object's outline.
    vec3 plane = cross(dFdx(position), dFdy(position));
    plane = dot(plane, camera - position) < 0.0 ? -plane : plane;
    vec3 n = dot(normal, normal) > 1e-12 ? normalize(normal) : normalize(camera - position);
    n = dot(n, plane) < 0.0 ? -n : n;
    if (draw_geometry) {
        if (alpha < 0.5) discard;
        premultiplied = vec4(n, 1.0 / gl_FragCoord.w);  // w is the depth along the camera's z axis
        return;
    }

    if (draw_albedo) {
        premultiplied = vec4(albedo.rgb, 1.0) * alpha;
        return;
    }
    vec3 glow = emission;
    if (has_emission_image) glow *= sampled(emission_image, emission_uv, emission_mirrored).rgb;
    premultiplied = vec4(albedo.rgb * (unlit ? 1.0 : irradiance(n)) + glow, 1.0) * alpha;
}
"""

IMAGE_VERTEX = """
#version 330
in vec2 in_corner;
void main() { gl_Position = vec4(in_corner, 0.0, 1.0); }
"""

# Averages premultiplied colours, so that an outline takes no colour from the empty background, then
# divides by alpha: what is written is straight alpha, and sRGB.
IMAGE_FRAGMENT = """
#version 330
uniform sampler2D linear_image;
uniform int supersample;
out vec4 straight;
void main() {
    vec4 total = vec4(0.0);
    ivec2 first = ivec2(gl_FragCoord.xy) * supersample;
    for (int y = 0; y < supersample; ++y)
        for (int x = 0; x < supersample; ++x)
            total += texelFetch(linear_image, first + ivec2(x, y), 0);
    total /= float(supersample * supersample);
    if (total.a < 0.002) { straight = vec4(0.0); return; }
    vec3 c = clamp(total.rgb / total.a, 0.0, 1.0);
    vec3 srgb = mix(12.92 * c, 1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, c));
    straight = vec4(srgb, total.a);
}
"""
