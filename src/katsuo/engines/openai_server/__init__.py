"""The engine `openai`: any server that speaks the OpenAI protocol, through a line that expects trouble."""
