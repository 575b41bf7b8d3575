"""All checks, in the order of the report. Imports nothing that may be broken."""

from lgm.doctor import devices, machine, packages, speed, weights
from lgm.doctor.finding import Check

CHECKS = {
    check.name: check
    for check in (
        Check("Python", packages.python, essential=True),
        Check("packages", packages.requirements),
        Check("torchvision", packages.torchvision),
        Check("training program", packages.training_program, essential=True),
        Check("processor and memory", machine.processor_and_memory),
        Check("folders", machine.folders, essential=True),
        Check("torch", devices.torch_and_driver, essential=True),
        Check("GPUs", devices.gpus),
        Check("compiler for gsplat", devices.compiler),
        Check("renderers", speed.renderers, essential=True),
        Check("attentions", speed.attentions, essential=True),
        Check("LPIPS weights", weights.lpips_weights),
        Check("HED weights", weights.hed_weights),
        Check("bundled weights", weights.bundled_weights),
        Check("OpenGL (data_tools.render)", devices.opengl),
    )
}
