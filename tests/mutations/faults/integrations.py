"""Faults in dropattack/integrations."""

from tests.mutations.fault import Fault

FAULTS = (
    Fault("integrations/lightning.py", "A resumed Lightning training starts with fresh random numbers.",
          "self.regularizer.load_state_dict(states[self.trainer.global_rank])",
          "pass", "tests/integrations/test_lightning.py", "resum"),
    Fault("integrations/hf.py", "Hugging Face's accumulated gradient is a sum instead of a mean.",
          "backward=lambda loss: self.accelerator.backward(loss / (divisor * whole)),",
          "backward=lambda loss: self.accelerator.backward(loss),", "tests/integrations/test_hf.py", "dropattack"),
    Fault("integrations/lightning.py", "With manual optimization every pass logs.",
          "            self._held.passes += 1\n            return forward()",
          "            return forward()", "tests/integrations/test_lightning_steps.py"),
    Fault("integrations/lightning.py", "A module's own checkpoint hook hides the regularizer's state.",
          "if owner is cls or not issubclass(owner, RegularizerMixin):",
          "if False:", "tests/integrations/test_lightning.py", "hooks_of_a_module"),
)  # fmt: skip
